"""The verbs that read a run folder, as a person types them."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pytest
from PIL import Image

from headway.cli import run


def parsed(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_eval_prints_the_metrics_of_a_split(runs, capsys):
    result = runs.fit("mlp")
    arguments = ["eval", "mlp", "--runs", str(runs.folder)]
    assert run([*arguments, "--json"]) == 0
    assert parsed(capsys)["metrics"]["test/accuracy"] == result.metrics["test/accuracy"]
    assert run([*arguments, "--split", "validation", "--attack", "fgsm:0.1", "--checkpoint", "last"]) == 0
    out = capsys.readouterr().out
    assert "validation, 270 samples" in out
    assert "val/robust_accuracy" in out


def test_predict_prints_five_classes_of_one_input_and_a_line_for_each_of_several(runs, tmp_path, capsys):
    runs.fit("mlp")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "[zero].png")
    path, place = str(tmp_path / "[zero].png"), ["--runs", str(runs.folder)]
    assert run(["predict", "mlp", path, *place]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert run(["predict", "mlp", path, path, *place]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "[zero].png" in lines[1]
    assert run(["predict", "mlp", path, "--json", *place]) == 0
    (row,) = parsed(capsys)["predictions"]
    assert len(row["probabilities"]) == 10
    runs.fit("regression")
    assert run(["predict", "regression", "-1,1,2,3,4,5,6,7,8,9", *place]) == 0
    assert "progression" in capsys.readouterr().out


def test_generate_streams_the_prompt_and_what_follows(runs, capsys):
    runs.fit("lstm")
    arguments = [
        "generate",
        "lstm",
        "--prompt",
        "the \u00e9",
        "--tokens",
        "17",
        "--seed",
        "3",
        "--runs",
        str(runs.folder),
    ]
    assert run(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("the \u00e9")
    assert len(captured.out) == len("the \u00e9") + 17 + len("\n")
    assert "never saw ('\u00e9')" in captured.err
    assert run([*arguments, "--json"]) == 0
    assert "the \u00e9" + parsed(capsys)["text"] == captured.out.removesuffix("\n")


def test_score_shows_tokens_and_compares_texts(runs, capsys):
    runs.fit("lstm")
    arguments = ["score", "lstm", "the cat", "-dog", "--next", "2", "--runs", str(runs.folder)]
    assert run(arguments) == 0
    out = capsys.readouterr().out
    assert "after '\\n'" in out
    assert "all others" in out
    assert "text, the most probable first" in out
    assert run([*arguments, "--json"]) == 0
    first, second = parsed(capsys)["scores"]
    assert [row["token"] for row in second["tokens"]] == list("\ufffddog")
    assert first["nats"] == pytest.approx(sum(row["log_probability"] for row in first["tokens"]))


def test_export_says_with_what_it_was_checked(runs, tmp_path, capsys):
    runs.fit("mlp")
    arguments = ["export", "mlp", "--to", "safetensors", "--out", str(tmp_path / "out"), "--runs", str(runs.folder)]
    assert run(arguments) == 0
    assert "headway gives the run's outputs to 0.0e+00" in capsys.readouterr().out
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "nothing"], "nothing: no run of that name"),
        (["eval", "mlp", "--attack", "fgsm"], "--attack: 'fgsm' should be fgsm:EPSILON"),
        (["eval", "mlp", "--checkpoint", "7"], "--checkpoint: mlp has none of step 7"),
        (["eval", "mlp", "--split", "tests"], "--split"),
        (["predict", "mlp"], "predict needs an INPUT"),
        (["predict", "mlp", "--jsn"], "unknown option --jsn"),
        (["predict", "gpt", "text"], "predict: gpt is a gpt on tokens"),
        (["generate", "mlp"], "generate: mlp is a mlp on features"),
        (["translate", "mlp", "one"], "translate: mlp is a mlp on features"),
        (["translate", "mlp"], "translate needs a TEXT"),
        (["score", "mlp", "one"], "score: mlp is a mlp on features"),
        (["score", "gpt"], "score needs a TEXT"),
        (["export", "mlp", "--to", "tensorflow"], "--to: 'tensorflow' is not known"),
        (["export", "mlp"], "--to"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_two(runs, capsys, arguments, message):
    for name in ("mlp", "gpt"):
        runs.fit(name)
    capsys.readouterr()
    assert run([*arguments, "--runs", str(runs.folder)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1, captured.err
    assert message in captured.err


def test_a_missing_run_is_answered_without_importing_torch(command, tmp_path):
    started = time.monotonic()
    done = command("predict", "nothing", "x.png", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 2
    assert "headway: nothing: no run of that name" in done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "headway.evaluate.selection" in imported
    assert not {"torch", "lightning", "pandas", "numpy"} & imported
    assert time.monotonic() - started < 20


def test_help_of_every_verb_imports_no_torch(command):
    code = "import sys; from headway.cli import app; print('torch' in sys.modules)"
    import subprocess

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
