"""The environment variables that W&B's users know: WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_API_KEY."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headway.cli import _tell_what_wandb_lacks
from headway.cli import run as headway
from headway.config.errors import UserError
from headway.fit import fit
from headway.run import RunFolder, make_run_folder
from headway.track.fragments import described, list_fragments
from headway.track.wandb_server import known_address, known_key, known_mode, known_project
from headway.track.weights_and_biases import choose_mode

ONLINE = {"track.wandb": "online", "track.code": False, "track.media": False}


def test_project_and_entity_are_the_environments_where_the_recipe_names_none(
    tiny_mlp, tmp_path, server, monkeypatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_ENTITY", "team")
    fit(tiny_mlp, ONLINE, runs=tmp_path, name="one", progress=False)
    named = {**ONLINE, "track.project": "mine", "track.entity": "me"}
    fit(tiny_mlp, named, runs=tmp_path, name="two", progress=False)
    assert {"team/theirs/one", "me/mine/two"} <= set(server.runs)


def test_tags_are_the_environments_where_the_recipe_names_none(tiny_mlp, tmp_path, server, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_TAGS", "first,second")
    monkeypatch.setenv("WANDB_RUN_GROUP", "lesson")
    fit(tiny_mlp, ONLINE, runs=tmp_path, name="one", progress=False)
    fields = server.run("one").fields
    assert (fields["tags"], fields["groupName"]) == (["first", "second"], "lesson")


def test_a_resumed_run_stays_in_its_project_whatever_the_environment_says_then(
    tiny_mlp, tmp_path, server, monkeypatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    fit(tiny_mlp, {**ONLINE, "track.wandb": "offline"}, runs=tmp_path, name="on", progress=False)
    monkeypatch.delenv("WANDB_PROJECT")
    fit(None, {"trainer.max_steps": 40}, resume="on", runs=tmp_path, progress=False)
    projects = [described(part).project for part in list_fragments(tmp_path / "on" / "wandb")]
    assert projects == ["theirs"] * len(projects)
    assert headway(["sync", "on", "--runs", str(tmp_path)]) == 0
    assert set(server.runs) == {"local/theirs/on"}


def test_key_and_address_are_the_environments(server) -> None:
    assert (known_address(), known_key()) == (server.url, server.environment["WANDB_API_KEY"])
    assert choose_mode("auto").mode == "online"


@pytest.mark.quick
def test_the_environments_words_for_modes_are_known(monkeypatch) -> None:
    found = {}
    for said in ("online", "offline", "disabled", "run", "dryrun", ""):
        monkeypatch.setenv("WANDB_MODE", said)
        found[said] = known_mode()
    assert found == {
        "online": "online",
        "offline": "offline",
        "disabled": "disabled",
        "run": "online",
        "dryrun": "offline",
        "": None,
    }
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    assert known_project(None) == "headway"


@pytest.mark.parametrize("wanted", ["auto", "online", "offline"])
def test_a_mode_that_wandb_does_not_know_is_one_line(monkeypatch, wanted) -> None:
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(UserError, match=r"^WANDB_MODE: 'sometimes' should be online, offline or disabled$"):
        choose_mode(wanted)
    assert choose_mode("disabled").mode == "disabled"


def test_nothing_is_started_where_online_cannot_be(recipe_file, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("headway.track.weights_and_biases.known_key", lambda: None)
    monkeypatch.setenv("WANDB_MODE", "online")
    runs = tmp_path / "runs"
    assert headway(["fit", str(recipe_file), "track.wandb=auto", "--runs", str(runs), "--name", "one"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("headway: WANDB_MODE: online, but there is no key; run `wandb login`")
    assert not (runs / "one").exists()


def test_a_key_that_the_server_refuses_is_offline_and_told(tiny_mlp, tmp_path, server, monkeypatch, capsys) -> None:
    server.misbehave(401)
    result = fit(tiny_mlp, ONLINE, runs=tmp_path, name="mine")
    told = capsys.readouterr().err
    assert f"W&B is offline: {server.url} refuses the key; `headway sync mine` uploads the run later" in told
    assert RunFolder(Path(result.run_dir)).status()["wandb"]["mode"] == "offline"
    assert headway(["sync", "mine", "--runs", str(tmp_path)]) == 3
    assert "refuses the key" in capsys.readouterr().err
    server.behave()
    assert headway(["sync", "mine", "--runs", str(tmp_path)]) == 0


def test_other_nodes_loads_are_in_the_runs_history(tiny_mlp, tmp_path, server, monkeypatch) -> None:
    monkeypatch.setattr("headway.track.weights_and_biases.EVERY_S", 0.0)

    def another_node(metrics: dict[str, float]) -> bool:
        system = tmp_path / "mine" / "system"
        system.mkdir(exist_ok=True)
        with (system / "node-1.jsonl").open("a") as file:
            file.write(json.dumps({"time": 1.0, "host": "other", "cpu_percent": metrics["step"]}) + "\n")
        return True

    fit(tiny_mlp, ONLINE, runs=tmp_path, name="mine", on_report=another_node, progress=False)
    run = server.run("mine")
    assert [row["system/node-1/cpu_percent"] for row in run.history if "system/node-1/cpu_percent" in row]
    assert run.events


@pytest.mark.quick
def test_a_sweep_says_how_many_of_its_trials_are_not_on_wandb_and_how_to_upload_them(tmp_path, capsys) -> None:
    states = [{"mode": "online"}, {"mode": "offline", "why": "there is no key"}, {"mode": "online", "problem": "lost"}]
    folders = []
    for number, state in enumerate(states):
        run = make_run_folder(tmp_path / f"search-{number:04d}")
        run.update_status(wandb=state)
        folders.append(str(run.path))
    _tell_what_wandb_lacks("runs/search", folders[:1])
    assert capsys.readouterr().err == ""
    _tell_what_wandb_lacks("runs/search", folders)
    said = "2 of 3 trials are not on W&B (there is no key); to upload: headway sync runs/search"
    assert capsys.readouterr().err == f"headway: {said}\n"
