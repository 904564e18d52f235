"""Noise on inputs, weights and gradients: how large it is, where it goes, and that it goes away again."""

import pytest
import torch
from torch import nn

from headway.config.contracts import DataSpec, Place
from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.fit import prepare
from headway.nn.draws import Draws
from headway.recipe import load_recipe
from headway.regularize.noise import Config
from headway.strategies import single

pytestmark = pytest.mark.quick

SPEC = DataSpec("features", (7,), num_classes=3)
N, D = 211, 307


def build(**settings):
    return Config(**settings).build(SPEC, seed=3)


def big_net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Linear(D, N)


def test_input_noise_is_normal_and_keyed_by_row() -> None:
    batch = {"input": torch.ones(N, D), "target": torch.zeros(N)}
    noise = build(input=0.3)
    found = noise.change_batch(batch, Draws(3, 5, 0, N))
    added = found["input"] - 1.0
    assert abs(float(added.mean())) < 0.005
    assert float(added.std()) == pytest.approx(0.3, rel=0.01)
    assert float((added / 0.3).pow(4).mean()) == pytest.approx(3.0, rel=0.05)
    assert found["target"] is batch["target"]
    assert batch["input"].equal(torch.ones(N, D))
    rows = {"input": batch["input"][17:29]}
    assert noise.change_batch(rows, Draws(3, 5, 17, 12))["input"].equal(found["input"][17:29])
    assert not noise.change_batch(batch, Draws(3, 6, 0, N))["input"].equal(found["input"])


def test_input_noise_without_keys_comes_from_the_librarys_generator() -> None:
    torch.manual_seed(5)
    found = build(input=0.3).change_batch({"input": torch.zeros(N, D)}, None)["input"]
    torch.manual_seed(5)
    torch.testing.assert_close(found, 0.3 * torch.randn(N, D))


def test_weight_noise_is_there_for_the_gradient_and_off_before_the_update(engine_of) -> None:
    net = big_net()
    engine = engine_of(net, lr=0.1)
    before, bias = net.weight.detach().clone(), net.bias.detach().clone()
    build(weight=0.2).before_forward(engine, 4)
    added = net.weight.detach() - before
    assert abs(float(added.mean())) < 0.005
    assert float(added.std()) == pytest.approx(0.2, rel=0.01)
    assert net.bias.equal(bias)
    net(torch.ones(2, D)).sum().backward()
    engine.update(engine.optimizers[0], None)
    torch.testing.assert_close(net.weight.detach(), before - 0.1 * 2.0, rtol=0, atol=1e-6)


def test_weight_noise_is_taken_off_to_the_bit_before_others_look_at_the_weights(engine_of) -> None:
    net = big_net()
    engine = engine_of(net)
    before = net.weight.detach().clone()
    build(weight=0.2).before_forward(engine, 4)
    net(torch.ones(2, D)).sum().backward()
    seen = {}
    engine.edit_gradients(lambda name, weight, gradient: seen.update({name: weight.clone()}))
    assert seen["weight"].equal(before)


def test_weight_noise_is_the_same_for_a_step_and_another_for_the_next(engine_of) -> None:
    drawn = []
    for step in (4, 4, 5):
        net = big_net()
        build(weight=0.2).before_forward(engine_of(net), step)
        drawn.append(net.weight.detach().clone())
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])


@pytest.mark.parametrize(("step", "variance"), [(0, 0.09), (8, 0.09 / 9**0.55)])
def test_the_variance_of_gradient_noise_falls(engine_of, step: int, variance: float) -> None:
    net = big_net()
    build(gradient=0.3).after_backward(engine_of(net), step)
    assert float(net.weight.grad.var()) == pytest.approx(variance, rel=0.02)
    assert float(net.bias.grad.var()) == pytest.approx(variance, rel=0.3)


def test_gradient_noise_without_decay_stays() -> None:
    assert Config(gradient=0.3, gradient_decay=0).gradient_decay == 0


def test_an_optimizer_that_searches_along_a_line_refuses_a_gradient_that_is_not_the_losss(tiny_mlp) -> None:
    changes = {"optim": {"kind": "lbfgs", "lr": 1.0}, "trainer.batch_size": 1797, "trainer.clip_norm": None}
    for name in ("weight", "gradient"):
        recipe = load_recipe(tiny_mlp, {**changes, "regularize.noise": {name: 0.1}})
        with pytest.raises(UserError, match=r"regularize\.noise: lbfgs compares losses with their gradients"):
            prepare(recipe, Place())
    prepare(load_recipe(tiny_mlp, {**changes, "regularize.noise": {"input": 0.1}}), Place())


def test_noise_on_tokens_and_noise_of_nothing_are_refused() -> None:
    spec = DataSpec("tokens", (31,), vocab_size=97)
    with pytest.raises(UserError, match=r"regularize\.noise\.input: 0\.1 .* gives tokens; leave it out"):
        Config(input=0.1).check(spec, single.Config(kind="single"))
    Config(weight=0.1).check(spec, single.Config(kind="single"))
    with pytest.raises(UserError, match=r"regularize\.noise: has no effect"):
        validate_section(Config, {}, path="regularize.noise")
