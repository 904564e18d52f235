"""One process writes a run, whoever else tries."""

import subprocess
import sys

import pytest

from headway.config.errors import UserError
from headway.run import create_run

LOCK = """
import sys, pathlib
from headway.run import RunFolder
with RunFolder(pathlib.Path(sys.argv[1])).owned():
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_process_cannot_write_the_same_run(tmp_path):
    run = create_run(tmp_path, "mlp", name="mine")
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process is writing this run; wait for it or stop it"), run.owned():
            pass
        other.stdin.write("\n")
    with run.owned():
        done = subprocess.run([sys.executable, "-c", LOCK, str(run.path)], capture_output=True, text=True, input="\n")
        assert "another process is writing this run" in done.stderr


def test_a_lock_ends_with_its_process(tmp_path):
    run = create_run(tmp_path, "mlp", name="mine")
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        other.stdout.readline()
        other.kill()
        other.wait()
    with run.owned():
        assert (run.path / "lock").exists()
