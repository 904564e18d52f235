"""What imports what, seen from fresh processes: `--help` and the run folder need no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "lightning", "ray", "wandb", "deepspeed")
VERBS = ("fit", "sweep", "recipes", "schema", "runs", "doctor", "data", "data fetch", "dash")

HELP = """
import contextlib, io, sys
from headway.cli import run
for command in sys.argv[1:]:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        run([*command.split(), "--help"])
    assert "Usage" in shown.getvalue(), command
    print(command, [name for name in {heavy} if name in sys.modules])
"""


def fresh(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program.replace("{heavy}", repr(HEAVY)), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("package", ["headway.config", "headway.run", "headway"])
def test_what_reads_runs_and_recipes_imports_no_torch(package):
    folder = ROOT / "platform" / "headway" / "config"
    modules = (
        [f"headway.config.{file.stem}" for file in folder.glob("*.py")] if package == "headway.config" else [package]
    )
    lines = "".join(f"import {module.removesuffix('.__init__')}\n" for module in modules)
    assert fresh(f"{lines}import sys\nprint([name for name in {{heavy}} if name in sys.modules])") == "[]\n"


def test_help_at_every_level_imports_no_torch():
    shown = fresh(HELP, "", *VERBS)
    assert shown.splitlines() == [f"{verb} []" for verb in ("", *VERBS)]


@pytest.mark.parametrize("command", ["recipes", "runs"])
def test_listing_imports_no_torch(command, tmp_path):
    program = (
        "import sys\nfrom headway.cli import run\nrun([sys.argv[1]])\nprint([n for n in {heavy} if n in sys.modules])"
    )
    assert fresh(program, command).splitlines()[-1] == "[]"


def test_names_are_checked_without_torch():
    program = (
        "import sys\nfrom headway.recipe import check_recipe_names\ncheck_recipe_names('gpt-python-docs')\n"
        "print([n for n in {heavy} if n in sys.modules])"
    )
    assert fresh(program) == "[]\n"


def test_platform_is_never_a_package():
    # With an __init__.py it would shadow the standard library's `platform`, which torch and ray import.
    assert [path.name for path in (ROOT / "platform").iterdir() if path.name != "__pycache__"] == ["headway"]
    assert not (ROOT / "tests" / "platform").exists()
    shown = subprocess.run(
        [sys.executable, "-c", "import platform; print(platform.machine())"], cwd=ROOT, capture_output=True, text=True
    )
    assert shown.stdout.strip(), shown.stderr


def test_no_module_is_named_like_one_of_the_standard_library():
    ours = {path.stem for path in (ROOT / "platform" / "headway").iterdir()}
    assert not ours & set(sys.stdlib_module_names)
