# Everything a person types. The set-up happens on first use and again when its inputs change.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export HEADWAY_TESTS ?=

.PHONY: demo test check soak bench images format clean setup

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("headway needs Python 3.11 or newer; set PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --constraint constraints.txt pip
	# torch first and alone: a range that leaves its version open brings gigabytes of CUDA packages.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch setuptools wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	# What tests hold ours against; beside the environment, since lightning would import it (tests/models/conftest.py).
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps --upgrade --target .venv/references torchvision
	touch $(READY)

demo: $(READY)  ## A GPT and a convnet on two processes, DeepSpeed, and a sweep
	$(BIN)/headway demo

test: check  ## Lint, types and the tests; HEADWAY_TESTS=all adds the slow ones
	$(BIN)/python -m pytest -m 'not quick and not soak' -n 2 --dist loadfile

check: $(READY)  ## Lint, types and the quickest tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m 'quick and not soak' -q -n 2 --dist loadfile

soak: $(READY)  ## The long matrices
	HEADWAY_TESTS=all $(BIN)/python -m pytest -m soak --timeout 7200

bench: $(READY)  ## Side by side with what a user would pick instead
	$(BIN)/python benchmarks/overhead.py

images: $(READY)  ## The pictures of docs/images, of runs that it trains; needs Chromium
	$(BIN)/python docs/make_images.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
