"""W&B through its real SDK, offline: what is in the files it leaves, and when it is online."""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headway.config.errors import Stopped, UserError
from headway.fit import fit
from headway.track import weights_and_biases
from headway.track.weights_and_biases import choose_mode

_BLOCK = 32 * 1024


def records(path: Path) -> Iterator[Any]:
    """Yields the records of a run's log: LevelDB's framing around W&B's protobuf messages."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, whole = 7, b""
    while position + 7 <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < 7:
            position += left
            continue
        checksum, length, part = struct.unpack_from("<IHB", data, position)
        body = data[position + 7 : position + 7 + length]
        position += 7 + length
        assert zlib.crc32(bytes([part]) + body) == checksum
        whole = body if part in (1, 2) else whole + body
        if part in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record


def read_run(folder: Path) -> dict[str, Any]:
    """Returns id, group, tags, sweep, config and history of one offline run."""
    (file,) = folder.glob("*.wandb")
    found: dict[str, Any] = {"config": {}, "history": [], "summary": {}, "exit": None}
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found |= {"id": run.run_id, "project": run.project, "group": run.run_group, "tags": list(run.tags)}
            found["sweep"] = run.sweep_id
            for update in run.config.update:
                found["config"][update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
        elif kind == "history":
            found["history"].append(
                {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            )
        elif kind == "summary":
            for update in record.summary.update:
                found["summary"][update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


def offline_runs(run_dir: str | Path) -> list[dict[str, Any]]:
    """Returns the runs once W&B's own process has written them out, which it does after `finish` returns."""
    deadline = time.monotonic() + 30
    while True:
        runs = [read_run(folder) for folder in sorted((Path(run_dir) / "wandb").glob("offline-run-*"))]
        if all(run["exit"] is not None for run in runs) or time.monotonic() > deadline:
            return runs
        time.sleep(0.1)


OFFLINE = {"track": {"wandb": "offline", "group": "lesson", "tags": ["first", "try"], "project": "school"}}


def test_a_fit_is_one_offline_run_with_the_recipe_as_its_config(tiny_mlp, tmp_path) -> None:
    result = fit(tiny_mlp, OFFLINE, runs=tmp_path, name="mine", progress=False)
    (run,) = offline_runs(result.run_dir)
    assert (run["id"], run["project"], run["group"], run["tags"]) == ("mine", "school", "lesson", ["first", "try"])
    assert run["config"]["optim.lr"] == 3e-3
    assert run["config"]["model.hidden"] == [17]
    assert run["exit"] == 0
    validations = [row for row in run["history"] if "val/loss" in row]
    assert [row["step"] for row in validations] == [10, 20, 30]
    assert validations[-1]["val/loss"] == pytest.approx(result.metrics["val/loss"], abs=0.5)
    assert [row["test/loss"] for row in run["history"] if "test/loss" in row] == [result.metrics["test/loss"]]
    # The first step goes as well: its row has the health of the layers.
    assert [row["step"] for row in run["history"] if "train/loss" in row] == [1, 10, 20, 30]


def test_ranks_share_one_run(command, recipe_file, tmp_path) -> None:
    done = command(
        "fit", recipe_file, "trainer.devices=2", "track.wandb=offline", "--runs", tmp_path / "runs", "--name", "two"
    )
    assert done.returncode == 0, done.stderr
    (run,) = offline_runs(tmp_path / "runs" / "two")
    assert run["id"] == "two"
    assert f"headway sync {tmp_path / 'runs' / 'two'}" in done.stdout


def test_a_resumed_run_is_the_same_run_for_wandb(tiny_mlp, tmp_path) -> None:
    fit(tiny_mlp, OFFLINE, runs=tmp_path, name="on", progress=False)
    time.sleep(1.1)  # W&B names its folders by the second
    fit(None, {"trainer.max_steps": 40}, resume="on", runs=tmp_path, progress=False)
    first, second = offline_runs(tmp_path / "on")
    assert first["id"] == second["id"] == "on"
    assert [row["step"] for row in second["history"] if "val/loss" in row] == [40]


def test_a_failed_run_is_marked_so(tiny_mlp, tmp_path) -> None:
    broken = {**OFFLINE, "optim": {"kind": "sgd", "lr": 1e30}, "trainer.clip_norm": None}
    with pytest.raises(Exception, match="train/loss is"):
        fit(tiny_mlp, broken, runs=tmp_path, name="bad", progress=False)
    (run,) = offline_runs(tmp_path / "bad")
    assert run["exit"] == 1
    assert run["summary"]["ended"] == "failed"
    assert run["summary"]["reason"].startswith("train/loss is")


def test_a_run_that_was_stopped_early_is_told_from_one_that_is_done(tiny_mlp, tmp_path) -> None:
    def stop(metrics: dict[str, float]) -> bool:
        raise Stopped("stopped by asha at step 10", signal_number=15)

    with pytest.raises(Stopped):
        fit(tiny_mlp, OFFLINE, runs=tmp_path, name="early", on_report=stop, progress=False)
    fit(tiny_mlp, OFFLINE, runs=tmp_path, name="whole", progress=False)
    (early,), (whole,) = offline_runs(tmp_path / "early"), offline_runs(tmp_path / "whole")
    assert (early["exit"], early["summary"]["ended"]) == (0, "stopped")
    assert early["summary"]["reason"] == "stopped by asha at step 10"
    assert (whole["exit"], whole["summary"]["ended"]) == (0, "done")


@pytest.fixture
def no_key(monkeypatch, tmp_path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setattr(weights_and_biases, "known_key", lambda: None)


@pytest.mark.usefixtures("no_key")
def test_auto_without_a_key_is_offline() -> None:
    assert choose_mode("auto").mode == "offline"


@pytest.mark.usefixtures("no_key")
def test_online_without_a_key_is_refused() -> None:
    with pytest.raises(UserError, match=r"track.wandb: online, but there is no key; run `wandb login`"):
        choose_mode("online")


def test_auto_with_a_key_and_no_server_is_offline(monkeypatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(weights_and_biases, "known_key", lambda: "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert choose_mode("auto").mode == "offline"


def test_the_environments_switch_decides_for_auto(monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert choose_mode("auto").mode == "disabled"
    assert choose_mode("offline").mode == "offline"


# W&B reads the sample and leaves its file open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_run_of_wandbs_agent_stays_in_its_sweep(tiny_mlp, tmp_path, monkeypatch) -> None:
    import wandb

    sample = tmp_path / "sample.yaml"
    sample.write_text("wandb_version: 1\noptim.lr: {value: 0.007}\n")
    # What an agent sets before it runs its command.
    given = {"SWEEP_ID": "sweep123", "RUN_ID": "agents1", "PROJECT": "theirs", "SWEEP_PARAM_PATH": str(sample)}
    wandb.teardown()
    for name, value in given.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    try:
        result = fit(tiny_mlp, {**OFFLINE, "optim.lr": 0.007}, runs=tmp_path, name="mine", progress=False)
        (run,) = offline_runs(result.run_dir)
    finally:
        wandb.teardown()
    assert (run["id"], run["sweep"], run["project"]) == ("agents1", "sweep123", "theirs")
    assert run["config"]["optim.lr"] == 0.007
    assert any("val/loss" in row for row in run["history"])
