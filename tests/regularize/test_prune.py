"""Gradual magnitude pruning: the schedule's values, and that zeros stay zeros."""

from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from headway.config.contracts import DataSpec
from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.fit import fit
from headway.regularize.prune import Config
from headway.run import RunFolder

SPEC = DataSpec("features", (7,), num_classes=3)


@pytest.mark.quick
def test_the_schedule_is_the_cubic_one() -> None:
    config = Config(sparsity=0.8, begin=10, end=50, every=10)
    found = [config.sparsity_after(step) for step in (0, 10, 19, 20, 25, 30, 40, 50, 1000)]
    expected = [0, 0, 0, 0.8 * (1 - 0.75**3), 0.8 * (1 - 0.75**3), 0.8 * (1 - 0.5**3), 0.8 * (1 - 0.25**3), 0.8, 0.8]
    assert found == pytest.approx(expected)


@pytest.mark.quick
def test_the_last_pruning_is_at_the_end_even_out_of_turn_and_one_shot_is_possible() -> None:
    assert Config(sparsity=0.8, end=25, every=10).sparsity_after(24) < 0.8
    assert Config(sparsity=0.8, end=25, every=10).sparsity_after(25) == 0.8
    once = Config(sparsity=0.5, begin=7, end=7)
    assert [once.sparsity_after(step) for step in (6, 7)] == [0.0, 0.5]


@pytest.mark.quick
def test_the_smallest_weights_of_each_matrix_go_and_stay_away(engine_of) -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(7, 11), nn.Tanh(), nn.Linear(11, 5))
    engine = engine_of(net, lr=0.1, momentum=0.9)
    technique = Config(sparsity=0.6, begin=1, end=3, every=1).build(SPEC, seed=1)
    technique.attach(net)
    x, zeros = torch.randn(13, 7), []
    for step in range(7):
        net(x).square().mean().backward()
        technique.after_backward(engine, step)
        engine.optimizers[0].step()
        before = net[0].weight.detach().clone()
        engine.optimizers[0].zero_grad()
        technique.after_update(engine, step)
        zeros.append(net[0].weight == 0)
        if step == 1:
            count = round(0.6 * (1 - 0.5**3) * 77)
            smallest = before.abs().flatten().argsort()[:count]
            assert zeros[-1].flatten().nonzero().flatten().tolist() == sorted(smallest.tolist())
    assert [int(mask.sum()) for mask in zeros] == [0, round(0.6 * (1 - 0.5**3) * 77), *[round(0.6 * 77)] * 5]
    assert all(bool((later | ~earlier).all()) for earlier, later in pairwise(zeros))
    assert int((net[2].weight == 0).sum()) == round(0.6 * 55)
    assert bool((net[0].bias != 0).all())


def test_a_run_ends_with_the_sparsity_it_asked_for(tmp_path, tiny_mlp) -> None:
    changes = {"regularize.prune": {"sparsity": 0.7, "end": 20, "every": 5, "spare": ["output.*"]}}
    fit(tiny_mlp, changes, runs=tmp_path, name="run", progress=False)
    weights = load_file(tmp_path / "run" / "checkpoints" / "00000030" / "weights.safetensors")
    hidden = weights["hidden.0.linear.weight"]
    assert int((hidden == 0).sum()) == round(0.7 * hidden.numel())
    assert bool((weights["output.weight"] != 0).all())


def test_only_a_net_that_is_pruned_is_best_tested_and_kept(tmp_path, tiny_mlp) -> None:
    changes = {"regularize.prune": {"sparsity": 0.95, "begin": 24, "end": 30, "every": 6}, "trainer.validate_every": 4}
    result = fit(tiny_mlp, changes, runs=tmp_path, name="run", progress=False)
    best = RunFolder(tmp_path / "run").status()["best"]
    assert best["step"] == result.step == 30
    assert result.metrics["val/loss"] == best["value"]


@pytest.mark.quick
def test_a_run_too_short_to_be_pruned_is_told_of(tmp_path, tiny_mlp, capsys) -> None:
    result = fit(tiny_mlp, {"regularize.prune": {"sparsity": 0.5, "end": 1000}}, runs=tmp_path, progress=False)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("headway: regularize.prune.end: 1000, but the run has 30 steps and ends before")
    assert result.step == 30


@pytest.mark.quick
def test_impossible_settings_are_refused() -> None:
    with pytest.raises(UserError, match=r"regularize\.prune: begin is 9, after end, 5; make begin smaller"):
        validate_section(Config, {"sparsity": 0.5, "begin": 9, "end": 5}, path="regularize.prune")
    technique = Config(sparsity=0.5, end=5, spare=("head.*",)).build(SPEC, seed=1)
    with pytest.raises(UserError, match=r"regularize\.prune\.spare: 'head\.\*' is no weight matrix .* has 0\.weight"):
        technique.attach(nn.Sequential(nn.Linear(7, 3)))
