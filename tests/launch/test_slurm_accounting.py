"""What sacct says of jobs that Slurm itself has forgotten, from real accounts in a real database."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from headway.jobs import board
from headway.jobs.profiles import load_profile
from headway.jobs.records import JobRecord, list_records
from headway.jobs.submit import prepare_submission, submit
from headway.run import RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture
def send(accounted_slurm, tmp_path: Path, recipe_file: Path):
    runs, on = tmp_path / "runs", tmp_path / "cluster.yaml"
    on.write_text(yaml.safe_dump({"kind": "slurm", "grace_s": 30}))

    def send(name: str, *overrides: str, seeds: tuple[int, ...] = ()) -> JobRecord:
        prepared = prepare_submission(
            "fit", recipe_file, overrides, profile=load_profile(str(on)), profile_name="on", runs=runs, name=name,
            seeds=seeds,
        )  # fmt: skip
        return submit(prepared)

    yield send
    board.cancel(list_records(runs))


def test_jobs_that_slurm_has_forgotten_are_told_from_its_accounts(accounted_slurm, send, tmp_path) -> None:
    endless = ("trainer.max_steps=100000", "trainer.validate_every=20", "optim.schedule=constant")
    records = {
        "went": send("went"),
        "nan": send("nan", "optim.lr=1e30"),
        "seeds": send("seeds", seeds=(2, 3)),
        "ended": send("ended", *endless),
    }
    ended = RunFolder(tmp_path / "runs" / "ended")
    number = str(records["ended"].native_id())
    accounted_slurm.wait_for(lambda: ended.status().get("checkpoint", 0) >= 20, "a checkpoint", 120)
    accounted_slurm("scontrol", "requeue", number)
    accounted_slurm.wait_for(lambda: ended.read_json("manifest.json").get("resumed"), "resumed", 120)
    accounted_slurm("scancel", number)
    # A job that nobody looks at until squeue no longer has it, and whose script's own files are gone, too.
    accounted_slurm.wait_for(lambda: not accounted_slurm("squeue", "-h", "--states=all").strip(), "forgetting", 180)
    for record in records.values():
        for left in record.folder.glob("task-*.exit"):
            left.unlink()
    found = {name: [task.status for task in board.look([record])] for name, record in records.items()}
    assert [(status.state, status.exit_code) for status in found["went"]] == [("done", 0)]
    assert [(status.state, status.exit_code) for status in found["nan"]] == [("failed", 3)]
    assert found["nan"][0].reason == "exit code 3: training failed, see the log"
    assert [status.state for status in found["seeds"]] == ["done", "done"]
    assert [(status.state, status.requeues) for status in found["ended"]] == [("cancelled", 1)]
    assert all(
        status.where in (("n1",), ("n2",)) and status.since for statuses in found.values() for status in statuses
    )
