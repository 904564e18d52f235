"""What all tests share: which run, and what a missing component means."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EVERYTHING = os.environ.get("HEADWAY_TESTS") == "all"

# No test talks to W&B's servers; those that want its files ask for offline by name.
os.environ.setdefault("WANDB_MODE", "disabled")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "soak" not in config.option.markexpr:
        items[:] = [item for item in items if "soak" not in item.keywords]
    if EVERYTHING:
        return
    slow = pytest.mark.skip(reason="slow: runs with HEADWAY_TESTS=all")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """With HEADWAY_TESTS=all a skip is a failure: the component it wants should be there. GPUs aside."""
    report = yield
    if EVERYTHING and report.skipped and "gpu" not in item.keywords and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, where nothing should be: {report.longrepr}"
    return report


@pytest.fixture
def tiny_mlp() -> dict[str, Any]:
    """Returns a recipe's tree that trains in a second."""
    return {
        "name": "tiny",
        "model": {"kind": "mlp", "hidden": [17], "dropout": 0.2},
        "data": "digits",
        "init": "kaiming",
        "optim": {"kind": "adamw", "lr": 3e-3, "schedule": "cosine"},
        "trainer": {"max_steps": 30, "batch_size": 64, "validate_every": 10, "clip_norm": 1.0, "threads": 1},
        "track": {"wandb": "disabled"},
    }


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Returns a function that runs `headway` as a process of its own."""

    def run(*arguments: str | Path, cwd: Path | None = None, timeout: float = 120, **environment: str) -> Any:
        return subprocess.run(
            [sys.executable, "-m", "headway", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=timeout,
            env={**os.environ, **environment},
        )

    return run


@pytest.fixture
def recipe_file(tmp_path: Path, tiny_mlp: dict[str, Any]) -> Path:
    """Returns a file of the tiny recipe."""
    import yaml

    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_mlp))
    return path


@pytest.fixture(scope="session")
def on_two_ranks() -> Callable[..., None]:
    """Returns a function that trains `{name: recipe}` on two ranks into a folder, and calls another one meanwhile."""

    def run(folder: Path, cases: dict[str, Any], meanwhile: Callable[[], object] = lambda: None) -> None:
        file = folder / "cases.json"
        file.write_text(json.dumps(list(cases.items())))
        worker = [sys.executable, str(Path(__file__).with_name("two_ranks.py")), str(folder), str(file)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        ranks = [
            subprocess.Popen(worker, env={**os.environ, **place, "RANK": rank}, stderr=subprocess.PIPE, text=True)
            for rank in ("0", "1")
        ]
        meanwhile()
        for rank in ranks:
            _, errors = rank.communicate(timeout=300)
            assert rank.returncode == 0, errors[-3000:]

    return run


@pytest.fixture(autouse=True)
def _no_leftover_handlers() -> Any:
    """A fit inside another program leaves its signal handlers alone."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) is before


def needs(program: str) -> pytest.MarkDecorator:
    """Returns the mark of a test that wants a program on the path."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed here")
