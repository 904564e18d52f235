"""No key, no network, a server that dies or refuses: a run is never lost, and never waits for long."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_wandb import KEY, FakeWandb, deaf_port

from headway.config.errors import UserError
from headway.fit import fit
from headway.run import RunFolder
from headway.track import weights_and_biases
from headway.track.fragments import list_fragments
from headway.track.weights_and_biases import choose_mode
from headway.wandb_file import read_offline_run

EVERY_STEP = {"track.wandb": "auto", "track.wandb_every": 1}


def steps_on_disk(run: RunFolder) -> list[int]:
    """Returns the steps that W&B's files have, in order."""
    found = [read_offline_run(fragment.folder) for fragment in list_fragments(run.path / "wandb")]
    return [row["_step"] for part in found for row in part.rows]


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    wandb.teardown()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.delenv("WANDB_MODE", raising=False)


@pytest.mark.usefixtures("key")
def test_a_server_that_takes_connections_and_says_nothing_is_offline(monkeypatch) -> None:
    monkeypatch.setattr(weights_and_biases, "PROBE_S", 0.3)
    with deaf_port() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        choice = choose_mode("auto")
        assert (choice.mode, choice.why) == ("offline", f"{url} does not answer within 0 s")


@pytest.mark.usefixtures("key")
def test_nobody_at_the_address_is_offline_and_the_reason_is_told(monkeypatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    choice = choose_mode("auto")
    assert choice.mode == "offline"
    assert choice.why.startswith("http://127.0.0.1:9 cannot be reached")


@pytest.mark.parametrize(
    ("status", "why"), [(401, "refuses the key"), (403, "refuses the key"), (429, "429"), (500, "500")]
)
def test_a_server_that_does_not_take_runs_now_is_offline(server: FakeWandb, status: int, why: str) -> None:
    server.misbehave(status)
    choice = choose_mode("auto" if status != 500 else "online")
    assert choice.mode == "offline"
    assert why in choice.why


def test_a_fit_without_a_server_says_why_and_how_to_upload_it(tiny_mlp, tmp_path, server, capsys) -> None:
    server.stop()
    result = fit(tiny_mlp, {**EVERY_STEP, "track.wandb": "online"}, runs=tmp_path, name="mine")
    run = RunFolder(Path(result.run_dir))
    told = capsys.readouterr().err
    assert f"W&B is offline: {server.url} cannot be reached" in told
    assert "`headway sync mine` uploads the run later" in told
    assert run.status()["wandb"]["mode"] == "offline"
    assert steps_on_disk(run) == list(range(1, 31))


def test_a_server_that_falls_silent_when_the_run_is_made_leaves_it_offline(
    tiny_mlp, tmp_path, server, monkeypatch
) -> None:
    monkeypatch.setattr(weights_and_biases, "INIT_S", 0.7)
    server.misbehave("silent", where="UpsertBucket")
    result = fit(tiny_mlp, {**EVERY_STEP, "track.wandb": "online"}, runs=tmp_path, name="mine", progress=False)
    run = RunFolder(Path(result.run_dir))
    assert run.status()["wandb"]["mode"] == "offline"
    assert [read_offline_run(part.folder).exit_code for part in list_fragments(run.path / "wandb")][-1] == 0
    assert steps_on_disk(run) == list(range(1, 31))


@pytest.mark.parametrize("fault", ["stop", 403, 500, "silent"])
def test_a_server_that_is_lost_in_the_middle_costs_a_bounded_wait_and_no_row(
    tiny_mlp, tmp_path, server, monkeypatch, capsys, fault
) -> None:
    monkeypatch.setattr(weights_and_biases, "END_S", 6.0)
    monkeypatch.setattr(weights_and_biases, "FINISH_S", 2.0)

    def lose_it(metrics: dict[str, float]) -> bool:
        if metrics["step"] == 20:
            server.stop() if fault == "stop" else server.misbehave(fault, where="file")
        return True

    online = {**EVERY_STEP, "track.wandb": "online"}
    result = fit(tiny_mlp, online, runs=tmp_path, name="mine", on_report=lose_it)
    run = RunFolder(Path(result.run_dir))
    assert result.status == "done"
    assert steps_on_disk(run) == list(range(1, 31))
    assert run.status()["wandb"]["problem"]
    assert "what is left is on disk: `headway sync mine` uploads it" in capsys.readouterr().err
    assert not any(fragment.is_synced for fragment in list_fragments(run.path / "wandb"))


def test_a_key_is_needed_only_where_online_is_asked_for(server, monkeypatch) -> None:
    monkeypatch.setattr(weights_and_biases, "known_key", lambda: None)
    monkeypatch.delenv("WANDB_MODE")
    assert choose_mode("auto").why == "there is no key"
    with pytest.raises(UserError, match="there is no key"):
        choose_mode("online")


def test_the_key_is_in_no_file_of_the_run(tiny_mlp, tmp_path, server) -> None:
    result = fit(tiny_mlp, {**EVERY_STEP, "track.wandb": "online"}, runs=tmp_path, name="mine", progress=False)
    files = [path for path in Path(result.run_dir).rglob("*") if path.is_file()]
    assert files
    assert not any(KEY.encode() in path.read_bytes() for path in files)
