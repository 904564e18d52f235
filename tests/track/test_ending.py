"""The end of a run whose server dies while an artifact goes up: one deadline for all of it, and nothing is lost."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fake_wandb import FakeWandb, until
from test_media import assert_complete

from headway.cli import run as headway
from headway.fit import fit
from headway.fused.fit import fit_rows
from headway.recipe import load_recipe
from headway.run import RunFolder, make_run_folder, read_metrics
from headway.track import weights_and_biases
from headway.track.fragments import list_fragments
from headway.track.patience import REMEMBERED_S, Deadline, Servers, Worker, within
from headway.track.weights_and_biases import Choice, WandbSink, choose_mode

ONLINE = {"track.wandb": "online", "track.wandb_every": 1, "track.checkpoints": True}


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Gives what each end may wait; all of an end's waits are of the one deadline that is made for it."""
    given: list[float] = []

    class Watched(Deadline):
        def __init__(self, limit_s: float, **rest: Any) -> None:
            given.append(limit_s)
            super().__init__(limit_s, **rest)

    monkeypatch.setattr(weights_and_biases, "Deadline", Watched)
    yield given


@pytest.mark.quick
def test_all_waits_of_an_end_share_what_is_left() -> None:
    clock = Clock()
    deadline = Deadline(30, clock=clock)
    clock.now = 29
    assert deadline.left_s == 1
    clock.now = 31
    assert deadline.left_s == 0


@pytest.mark.quick
def test_an_end_that_takes_too_long_is_left_behind_with_what_the_deadline_has_left(monkeypatch) -> None:
    ended: list[bool] = []
    monkeypatch.setattr("headway.track.patience.end_service", lambda: ended.append(True))
    monkeypatch.setattr("headway.track.patience.is_needed", lambda: False)
    never = threading.Event()
    with pytest.raises(TimeoutError):
        within(Deadline(0), never.wait)  # type: ignore[arg-type]
    assert ended == [True]
    with pytest.raises(KeyError):
        within(Deadline(30), {}.popitem)  # type: ignore[arg-type]
    assert ended == [True]
    never.set()


@pytest.mark.quick
def test_a_worker_that_is_held_up_is_not_waited_for() -> None:
    taken, hold = [], threading.Event()

    def take(item: int) -> None:
        hold.wait()
        taken.append(item)

    worker = Worker("test", take)
    worker.put(2)
    worker.put(3)
    assert not worker.close(0)
    hold.set()
    assert worker.close(30)
    assert taken == [2, 3]


@pytest.mark.quick
def test_a_server_that_kept_somebody_waiting_is_remembered_for_a_while() -> None:
    clock = Clock()
    servers = Servers(clock=clock)
    servers.remember("here", "it is silent")
    assert (servers.recall("here"), servers.recall("there")) == ("it is silent", None)
    clock.now = REMEMBERED_S
    assert servers.recall("here") is None


@pytest.mark.parametrize("fault", ["stop", "silent"])
@pytest.mark.parametrize("kind", ["code", "model"])
def test_what_a_server_that_dies_within_an_artifact_lacks_goes_up_later(
    tiny_mlp, tmp_path, server: FakeWandb, monkeypatch, capsys, limits, kind, fault
) -> None:
    monkeypatch.setattr(weights_and_biases, "END_S", 4.0)
    monkeypatch.setattr(weights_and_biases, "FINISH_S", 2.0)

    def die() -> None:
        until(lambda: any(artifact.type == kind for artifact in server.artifacts))
        server.stop() if fault == "stop" else server.misbehave("silent")

    dying = threading.Thread(target=die)
    dying.start()
    # Its upload is what the server dies in.
    server.misbehave("sluggish", where="PUT /storage", delay_s=20)
    fit(tiny_mlp, ONLINE, runs=tmp_path, name="mine")
    dying.join()
    # One deadline for the rows, the artifacts, W&B's own process, and the question after it.
    assert limits == [4.0]
    run = RunFolder(tmp_path / "mine")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "W&B" in line]
    assert "; what is left is on disk: `headway sync mine` uploads it" in line
    assert run.status()["wandb"]["problem"] in line
    assert not any(fragment.is_synced for fragment in list_fragments(run.path / "wandb"))

    server.stop()
    server.behave()
    server.start()
    shutil.copytree(run.path, tmp_path / "elsewhere" / "mine", symlinks=True)
    assert headway(["sync", "mine", "--runs", str(tmp_path / "elsewhere")]) == 0
    assert_complete(server, "mine")
    there, rows = server.run("mine"), read_metrics(run.metrics)
    for metric in ("train/loss", "val/loss", "test/loss"):
        assert there.steps_of(metric) == [row["step"] for row in rows if metric in row]
    best = run.status()["best"]
    assert (there.summary["best/step"], there.summary["ended"], there.exit_code) == (best["step"], "done", 0)
    before = list(server.operations)
    assert headway(["sync", "mine", "--runs", str(tmp_path / "elsewhere")]) == 0
    assert server.operations == before


def test_the_rows_of_an_array_do_not_wait_for_a_lost_server_one_after_the_other(
    tiny_mlp, tmp_path, server, monkeypatch, limits
) -> None:
    monkeypatch.setattr(weights_and_biases, "END_S", 3.0)
    monkeypatch.setattr(weights_and_biases, "FINISH_S", 2.0)
    recipes = {f"row-{number}": load_recipe(tiny_mlp, {**ONLINE, "trainer.seed": number}) for number in range(5)}
    # Validates at 10, 20, 30; W&B's file stream is silent from the start.
    server.misbehave("silent", where="file_stream")
    fit_rows(recipes, runs=tmp_path)
    assert limits == [3.0, *[weights_and_biases.AGAIN_S] * 4]
    assert all("problem" in RunFolder(tmp_path / name).status()["wandb"] for name in recipes)
    assert choose_mode("auto").mode == "offline"
    server.behave()
    assert headway(["sync", "--all", "--runs", str(tmp_path)]) == 0
    for name in recipes:
        assert server.run(name).steps_of("train/loss") == list(range(1, 31))
        assert server.run(name).exit_code == 0


def test_a_server_that_says_nothing_is_asked_once_for_an_array(server, monkeypatch) -> None:
    monkeypatch.setattr(weights_and_biases, "PROBE_S", 0.2)
    server.misbehave("silent")
    first = choose_mode("auto")
    server.behave()
    assert choose_mode("auto") == first
    assert first.mode == "offline"
    assert server.operations == []


def test_no_row_waits_behind_an_artifact(recipe_file, tmp_path, server, monkeypatch) -> None:
    monkeypatch.setattr(weights_and_biases, "END_S", 3.0)
    monkeypatch.setattr(weights_and_biases, "FINISH_S", 2.0)
    server.misbehave("silent", where="ArtifactType")
    run = make_run_folder(tmp_path / "mine")
    sink = WandbSink(run, load_recipe(recipe_file, ONLINE), Choice("online"))
    sink.write([{"step": step, "train/loss": 1 / step} for step in range(1, 8)])
    sink.write([{"step": 8, "train/loss": 1 / 8}])
    until(lambda: "local/headway/mine" in server.runs and server.run("mine").history)
    assert server.run("mine").steps_of("train/loss")[:2] == [1, 2]
    sink.close()
    assert not any(artifact.type == "code" for artifact in server.artifacts)
    assert "the run's code" in run.status()["wandb"]["problem"]
