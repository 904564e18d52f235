"""The verbs that look rather than train, as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headway.cli import run
from headway.config.shipped import shipped_recipes
from headway.fit import fit


def test_recipes_lists_each_with_what_it_does(capsys) -> None:
    assert run(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in shipped_recipes():
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert len(line.split(maxsplit=1)[1]) > 20


def test_runs_lists_status_and_headline(tiny_mlp, tmp_path, capsys) -> None:
    result = fit(tiny_mlp, {"trainer.max_steps": 10}, runs=tmp_path, name="first", progress=False)
    (tmp_path / "not-a-run").mkdir()
    assert run(["runs", "--runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "first" in out
    assert "done" in out
    assert f"test/accuracy {result.metrics['test/accuracy']:.4g}" in out
    assert "not-a-run" not in out
    assert run(["runs", "--runs", str(tmp_path), "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["runs"]
    assert listed["run"] == "first"
    assert listed["state"] == "done"


def test_runs_of_an_empty_folder_are_none(tmp_path, capsys) -> None:
    assert run(["runs", "--runs", str(tmp_path / "nowhere"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"runs": []}


def test_doctor_names_every_part_and_what_to_do(capsys) -> None:
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    for part in ("Python", "torch", "GPUs", "Lightning", "DeepSpeed", "Ray", "W&B", "Slurm"):
        assert part in out
    import torch

    if not torch.cuda.is_available():
        assert "headway trains on the CPU" in out


def test_doctor_fails_where_nothing_can_train_and_not_for_what_is_only_wanted(monkeypatch, capsys) -> None:
    from headway import doctor

    slurm, torch = doctor.Check("Slurm", "broken", "sinfo fails"), doctor.Check("torch", "broken", "no module")
    monkeypatch.setattr(doctor, "diagnose", lambda: [slurm])
    assert run(["doctor"]) == 0
    monkeypatch.setattr(doctor, "diagnose", lambda: [slurm, torch])
    assert run(["doctor"]) == 2
    assert "no module" in capsys.readouterr().out


def test_data_lists_what_is_here(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HEADWAY_DATA", str(tmp_path))
    assert run(["data", "--json"]) == 0
    found = {item["name"]: item for item in json.loads(capsys.readouterr().out)["data"]}
    assert found["digits"]["ready"]
    assert not found["cifar10"]["ready"]
    assert run(["data"]) == 0
    assert "cifar10" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit"],
        ["fit", "no-such-recipe"],
        ["fit", "mlp-digit"],
        ["fit", "mlp-digits", "--resume", "nothing"],
        ["fit", "mlp-digits", "--name", "../escape"],
        ["fit", "mlp-digits", "optim.lr"],
        ["sweep", "convnet-digits"],
        ["data", "fetch", "mnits"],
        ["frobnicate"],
        ["fit", "mlp-digits", "--no-such-flag"],
    ],
)
def test_wrong_input_is_one_line_and_exit_code_two(arguments, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1, captured.err
    assert captured.err.startswith("headway: ")
    assert list(tmp_path.iterdir()) == []


def test_a_runs_folder_that_cannot_be_written_is_refused_before_training(
    tiny_mlp, tmp_path, capsys, recipe_file
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert run(["fit", str(recipe_file), "--runs", str(blocked)]) == 2
    assert "--runs" in capsys.readouterr().err


def test_headway_works_from_python(tmp_path: Path) -> None:
    import headway as hw

    result = hw.fit("mlp-digits", ["trainer.max_steps=20", "track.wandb=disabled"], runs=tmp_path, progress=False)
    assert result.step == 20
    assert Path(result.run_dir).is_dir()
    assert hw.load_recipe("mlp-digits").name == "mlp-digits"
