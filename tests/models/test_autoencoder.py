"""The autoencoder against a stack of torch's layers, and its weights as the start of a classifier."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

import headway as hw
from headway.config.contracts import DataSpec
from headway.config.errors import UserError
from headway.init import from_run
from headway.init.base import initialize
from headway.models import autoencoder, mlp
from headway.nn.draws import Draws, name_streams

SPEC = DataSpec("features", (11,), num_classes=3)


def build(**settings):
    return autoencoder.Config(kind="autoencoder", **{"hidden": (7, 5), "activation": "tanh", **settings}).build(SPEC)


@pytest.mark.quick
def test_untied_it_is_a_stack_of_layers():
    net = build(corruption="none")
    sizes = [(11, 7), (7, 5), (5, 7), (7, 11)]
    linear = [nn.Linear(*size) for size in sizes]
    for own, theirs in zip([*net.hidden, *net.decoder], linear, strict=True):
        theirs.load_state_dict(own.linear.state_dict())
    twin = nn.Sequential(linear[0], nn.Tanh(), linear[1], nn.Tanh(), linear[2], nn.Tanh(), linear[3])
    x = torch.randn(2, 11)
    torch.testing.assert_close(net(x), twin(x))


@pytest.mark.quick
def test_only_the_last_layer_has_no_activation_even_where_a_hidden_one_is_as_wide_as_the_input():
    for tied in (False, True):
        net = build(hidden=(11, 5), tied=tied)
        assert [type(layer.activation) for layer in net.decoder] == [nn.Tanh, nn.Identity]


@pytest.mark.quick
def test_tied_the_decoder_has_the_encoders_weights_transposed():
    net = build(corruption="none", tied=True)
    one, two = (layer.linear for layer in net.hidden)
    x = torch.randn(2, 11)
    code = torch.tanh(two(torch.tanh(one(x))))
    back = torch.tanh(F.linear(code, two.weight.T, net.decoder[0].bias))
    torch.testing.assert_close(net(x), F.linear(back, one.weight.T, net.decoder[1].bias))
    assert sum(weight.numel() for weight in net.parameters()) == (11 * 7 + 7) + (7 * 5 + 5) + 7 + 11


@pytest.mark.quick
def test_corruption_makes_holes_or_noise_while_training_only():
    x = torch.rand(997, 11) + 1
    for settings in ({"corruption": "mask", "amount": 0.3}, {"corruption": "gaussian", "amount": 0.3}):
        net = name_streams(build(**settings))
        spoilt = net.corrupt(x, Draws(3, 5, 0, len(x)))
        if settings["corruption"] == "mask":
            assert set((spoilt / x).unique().tolist()) == {0.0, 1.0}
            assert abs((spoilt == 0).float().mean() - 0.3) < 0.02
        else:
            assert abs((spoilt - x).std() - 0.3) < 0.02
        assert torch.equal(net.eval().corrupt(x, Draws(3, 5, 0, len(x))), x)


@pytest.mark.quick
def test_what_cannot_be_built_is_refused_in_a_line():
    with pytest.raises(ValidationError, match=r"amount 1\.5 masks everything"):
        build(amount=1.5)
    with pytest.raises(UserError, match=r"model.kind: autoencoder reads real values; this data gives tokens"):
        autoencoder.Config(kind="autoencoder", hidden=(3,)).build(DataSpec("tokens", (5,), vocab_size=7))


def test_its_encoder_starts_a_classifier(tmp_path, tiny_mlp):
    tree = {**tiny_mlp, "model": {"kind": "autoencoder", "hidden": [17, 5]}}
    learned = hw.fit(tree, runs=tmp_path, name="ae", progress=False)
    best = load_file(next((tmp_path / "ae" / "checkpoints").glob("*30/weights.safetensors")))
    spec = DataSpec("features", (64,), num_classes=10)
    config = from_run.Config(kind="from_run", run=learned.run_dir, otherwise="constant", seed=3)
    net = initialize(mlp.Config(kind="mlp", hidden=(17, 13)).build(spec), config)
    assert torch.equal(net.hidden[0].linear.weight, best["hidden.0.linear.weight"])
    assert net.hidden[1].linear.weight.eq(0).all()
    classifier = {**tiny_mlp, "model": {"kind": "mlp", "hidden": [17, 5]}, "init": config.model_dump()}
    assert hw.fit(classifier, runs=tmp_path, progress=False).status == "done"


@pytest.mark.quick
def test_a_run_that_cannot_start_a_net_is_said_in_a_line(tmp_path):
    net = mlp.Config(kind="mlp", hidden=(5,)).build(SPEC)
    with pytest.raises(UserError, match=r"init.run: .*/nowhere is no run"):
        from_run.Config(kind="from_run", run=str(tmp_path / "nowhere"), seed=1).given(net)
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(UserError, match="has no checkpoint that can be read"):
        from_run.Config(kind="from_run", run=str(tmp_path), seed=1).given(net)
    with pytest.raises(ValidationError, match="'kaimin' is no scheme; did you mean kaiming"):
        from_run.Config(kind="from_run", run=str(tmp_path), otherwise="kaimin")


def test_a_run_that_shares_no_weight_is_said_in_a_line(tmp_path, tiny_mlp):
    other = hw.fit(tiny_mlp, {"trainer.max_steps": 1}, runs=tmp_path, progress=False)
    start = {"kind": "from_run", "run": other.run_dir}
    with pytest.raises(
        UserError,
        match=r"has no weight of the name and shape of this net's; it has hidden.0.linear.bias, .* and the net",
    ):
        hw.fit(tiny_mlp, {"init": start, "data": "breast_cancer", "model.hidden": [5]}, runs=tmp_path, progress=False)


def test_a_run_that_is_not_there_is_said_before_anything_is_made(tmp_path, tiny_mlp):
    with pytest.raises(UserError, match=r"^init\.run: .*/nowhere is no run"):
        hw.fit(tiny_mlp, {"init": {"kind": "from_run", "run": "/nowhere"}}, runs=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_run_that_started_from_another_repeats_and_goes_on(tmp_path, tiny_mlp, monkeypatch):
    tree = {**tiny_mlp, "model": {"kind": "autoencoder", "hidden": [17]}}
    hw.fit(tree, runs=tmp_path, name="ae", progress=False)
    monkeypatch.chdir(tmp_path)
    # A rate that does not look at how many steps there will be.
    optim = {"kind": "adamw", "lr": 3e-3}
    classifier = {**tiny_mlp, "init": {"kind": "from_run", "run": "ae"}, "optim": optim}
    whole = hw.fit(classifier, runs=tmp_path, name="whole", progress=False)
    hw.fit(classifier, {"trainer.max_steps": 10}, runs=tmp_path, name="half", progress=False)
    # The path is the one that was meant where the run began.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    # What it started from is not needed any more.
    shutil.rmtree(tmp_path / "ae")
    again = hw.fit(None, {"trainer.max_steps": 30}, resume="half", runs=tmp_path, progress=False)
    assert again.metrics == whole.metrics
