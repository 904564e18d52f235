"""Predictions against the net's own outputs on the samples of the data, and in the data's own units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from headway.config.errors import UserError
from headway.evaluate.loading import load_run
from headway.evaluate.prediction import predict
from headway.evaluate.selection import select
from headway.fit import fit
from headway.recipe import load_recipe


@pytest.mark.parametrize("name", ["mlp", "images"])
def test_a_digit_in_a_file_gets_the_classes_of_the_nets_logits(runs, tmp_path, name):
    from sklearn.datasets import load_digits

    loaded = runs.load(name)
    paths = []
    for place, image in enumerate(load_digits().images[:3]):
        paths.append(str(tmp_path / f"{place}.png"))
        Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(paths[-1])
    found = predict(loaded, paths).rows
    data = load_recipe(loaded.selection.run.recipe).data.load()
    pool = torch.cat(
        [split.gather(torch.arange(len(split)), epoch=0)["input"] for split in (data.train, data.validation, data.test)]
    )
    expected = loaded.net(pool).detach().double().softmax(1)
    for row in found:
        ranked = list(row.probabilities.values())
        assert ranked == sorted(ranked, reverse=True)
        assert sum(ranked) == pytest.approx(1.0)
        by_digit = torch.tensor([row.probabilities[str(digit)] for digit in range(10)], dtype=torch.float64)
        assert (expected - by_digit).abs().amax(1).min() < 1e-6


def test_a_regression_is_in_the_unit_of_its_target(runs):
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    result = runs.fit("good", {"model": "logistic", "data": "diabetes", "trainer": {"max_steps": 300}})
    assert result.metrics["test/loss"] < 0.7
    found = predict(runs.load("good"), [",".join(str(value) for value in row) for row in bunch.data[:97]]).rows
    values = np.array([row.values["progression"] for row in found])
    # The target is from 25 to 346 with a mean of 152.
    assert abs(values.mean() - bunch.target[:97].mean()) < 15
    assert np.corrcoef(values, bunch.target[:97])[0, 1] > 0.6
    assert found[0].probabilities == {}


def test_a_text_is_several_windows_and_their_mean(runs, tmp_path):
    for name, words in (("animals", "cat dog horse "), ("plants", "oak fern moss ")):
        (tmp_path / name).mkdir()
        for place in range(7):
            (tmp_path / name / f"{place}.txt").write_text(words * (5 + place))
    data = {"kind": "text_folder", "path": str(tmp_path), "sequence_length": 13, "vocab_size": 275}
    bert = {"kind": "bert", "num_layers": 1, "num_heads": 2, "width": 14, "dropout": 0.0}
    runs.fit("texts", {"model": bert, "data": data, "trainer": {"batch_size": 5, "max_steps": 60}})
    loaded = runs.load("texts")
    one, other = predict(loaded, ["cat horse dog cat dog horse " * 5, str(tmp_path / "plants" / "2.txt")]).rows
    assert next(iter(one.probabilities)) == "animals"
    assert next(iter(other.probabilities)) == "plants"
    assert sum(one.probabilities.values()) == pytest.approx(1.0)
    with pytest.raises(UserError, match="INPUT: ' ' is no text"):
        predict(loaded, [" "])


def test_a_net_that_predicts_no_target_is_refused(runs):
    with pytest.raises(UserError, match=r"predict: gpt is a gpt on tokens whose target is neither a class nor real"):
        predict(runs.load("gpt"), ["the cat"])
    runs.fit("coder", {"model": {"kind": "autoencoder", "hidden": [13]}, "data": "digits"})
    image = np.zeros((8, 8), np.uint8)
    Image.fromarray(image).save(runs.folder / "black.png")
    with pytest.raises(
        UserError, match=r"coder is a autoencoder that returns \(64,\) values of a sample, which are no"
    ):
        predict(runs.load("coder"), [str(runs.folder / "black.png")])


OWN = """
import torch
from lightning.pytorch import LightningModule
from headway.config.contracts import ModelConfig, ModuleConfig
from torch import nn

class NetConfig(ModelConfig):
    def build(self, spec):
        return Net(spec)

    def default_objective(self, spec):
        return "classify"

class Net(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.layer = nn.Linear(spec.input_shape[0], spec.num_classes)

    def forward(self, x, rng=None):
        return self.layer(x)

class Whole(LightningModule):
    def __init__(self, spec):
        super().__init__()
        self.net = Net(spec)

    def training_step(self, batch):
        return nn.functional.cross_entropy(self.net(batch["input"]), batch["target"])

    validation_step = training_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

class WholeConfig(ModuleConfig):
    def build_module(self, net, spec):
        return Whole(spec)
"""


def test_a_net_of_ones_own_predicts_where_it_is_trusted_and_a_whole_module_does_not(runs, tmp_path, monkeypatch):
    from headway.evaluate.evaluation import evaluate

    (tmp_path / "mine_to_predict.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    trust = ("mine_to_predict",)
    tree = {"data": "two_moons", "track": {"wandb": "disabled"}, "trainer": {"max_steps": 5, "batch_size": 31}}
    net = {**tree, "model": "mine_to_predict:NetConfig", "optim": {"kind": "sgd", "lr": 0.1}}
    fit({"name": "own", **net}, runs=tmp_path, name="own", trust=trust, progress=False)
    (row,) = predict(load_run(select("own", runs=tmp_path, trust=trust)), ["0.5,0.5"]).rows
    assert set(row.probabilities) == {"0", "1"}

    module = {**tree, "objective": "mine_to_predict:WholeConfig"}
    result = fit({"name": "whole", **module}, runs=tmp_path, name="whole", trust=trust, progress=False)
    selection = select("whole", runs=tmp_path, trust=trust)
    with pytest.raises(UserError, match=r"whole: its objective .* is a LightningModule of your own, .* headway eval"):
        load_run(selection)
    assert evaluate(selection).metrics["test/loss"] == result.metrics["test/loss"]
