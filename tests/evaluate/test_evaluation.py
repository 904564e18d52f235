"""Metrics of a split against those that the run recorded, and against closed forms."""

from __future__ import annotations

import json
import math

import pytest
import torch

from headway.config.errors import UserError
from headway.evaluate.attack import parse_attack
from headway.evaluate.evaluation import evaluate
from headway.evaluate.scoring import score
from headway.evaluate.selection import select
from headway.recipe import load_recipe


def recorded(result, part):
    return {name: value for name, value in result.metrics.items() if name.startswith(f"{part}/")}


@pytest.mark.parametrize("name", ["mlp", "regression", "lstm"])
def test_the_metrics_of_test_and_validation_are_the_runs_own_to_the_bit(runs, name):
    result = runs.fit(name)
    for split, part in (("test", "test"), ("validation", "val")):
        found = evaluate(runs.select(name), split=split).metrics
        found.pop(f"{part}/bits_per_character", None)
        assert found == recorded(result, part)


def test_mixed_precision_is_evaluated_in_mixed_precision(runs):
    recipe = {"model": {"kind": "mlp", "hidden": [17]}, "data": "digits", "trainer": {"precision": "bf16-mixed"}}
    result = runs.fit("mixed", recipe)
    assert evaluate(runs.select("mixed")).metrics == recorded(result, "test")


def test_a_checkpoint_can_be_chosen_by_its_step(runs):
    last = runs.select("mlp", checkpoint="last")
    assert last.step == 20
    assert evaluate(runs.select("mlp", checkpoint="20")).metrics == evaluate(last).metrics
    train = evaluate(last, split="train")
    assert set(train.metrics) == {"train/loss", "train/accuracy"}
    assert train.samples == 1257


def test_an_init_that_needs_something_else_is_not_asked_for(runs, moved):
    folder = moved("mlp")
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(text + "init:\n  kind: from_run\n  run: nowhere\n  seed: 0\n")
    assert evaluate(select(folder)).metrics == recorded(runs.fit("mlp"), "test")


def test_accuracy_under_attack_is_the_closed_form_of_a_linear_classifier(runs):
    epsilon = 0.3
    loaded = runs.load("linear")
    data = load_recipe(loaded.selection.run.recipe).data.load()
    batch = data.test.gather(torch.arange(len(data.test)), epoch=0)
    weight, bias = loaded.net.linear.weight, loaded.net.linear.bias
    sign = 1.0 - 2.0 * batch["target"]
    # With two classes the gradient's sign is that of the weights' difference, whatever the input.
    margin = sign * (batch["input"] @ (weight[0] - weight[1]) + bias[0] - bias[1])
    robust = ((margin - epsilon * (weight[0] - weight[1]).abs().sum()) > 0).double().mean()
    found = evaluate(loaded.selection, epsilon=epsilon).metrics
    assert found["test/robust_accuracy"] == pytest.approx(robust.item())
    assert found["test/accuracy"] == runs.fit("linear").metrics["test/accuracy"] > found["test/robust_accuracy"]


def test_bits_per_character_are_those_of_the_chain_rule(runs):
    for name, data in (("character", {}), ("pieces", {"vocabulary": "bpe", "vocab_size": 265})):
        # The test part is shorter than a window, so all of it is conditioned on its beginning.
        data = {"kind": "text", "sequence_length": 97, "test": 0.03, **data}
        runs.fit(name, {"model": {"kind": "lstm", "hidden": 13}, "data": data, "trainer": {"max_steps": 2}})
        text = runs.text.read_text()
        held_out = text[len(text) - round(0.03 * len(text)) :]
        by_hand = score(runs.load(name), held_out, given="")
        found = evaluate(runs.select(name)).metrics
        assert found["test/bits_per_character"] == pytest.approx(by_hand.bits_per_character, rel=1e-5)
        assert found["test/loss"] == pytest.approx(math.log(by_hand.perplexity), rel=1e-5)


def test_a_run_without_data_json_gets_one(moved):
    folder = moved("mlp")
    before = json.loads((folder / "data.json").read_text())
    (folder / "data.json").unlink()
    with pytest.raises(
        UserError, match=r"mlp: has no data.json, .* headway eval mlp loads the data once and writes it"
    ):
        select(folder).data()
    evaluate(select(folder))
    assert json.loads((folder / "data.json").read_text()) == {name: before[name] for name in ("spec", "reading")}


def test_data_that_has_changed_is_told(moved, capsys):
    folder = moved("mlp")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "data_sha256": "0" * 64}))
    evaluate(select(folder))
    assert capsys.readouterr().err == "headway: the data has changed since mlp was trained on it\n"


@pytest.mark.parametrize(("name", "given"), [("gpt", "tokens with no class"), ("regression", "features with no class")])
def test_what_cannot_be_attacked_is_refused(runs, name, given):
    with pytest.raises(UserError, match=f"--attack: .* this data gives {given}"):
        evaluate(runs.select(name), epsilon=0.1)


def test_an_objective_without_accuracy_cannot_be_attacked(runs):
    runs.fit("coder", {"model": {"kind": "autoencoder", "hidden": [13]}, "data": "digits", "trainer": {"max_steps": 2}})
    with pytest.raises(UserError, match=r"--attack: .* objective reconstruct counts none"):
        evaluate(runs.select("coder"), epsilon=0.1)


@pytest.mark.parametrize("text", ["fgsm", "fgsm:", "fgsm:no", "fgsm:-1", "fgsm:0", "fgsm:inf", "pgd:0.1", "0.1"])
def test_an_attack_is_a_method_and_a_size(text):
    assert parse_attack("fgsm:0.1") == 0.1
    with pytest.raises(UserError, match=r"--attack: .* should be fgsm:EPSILON, such as fgsm:0.1"):
        parse_attack(text)
