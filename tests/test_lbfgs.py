"""L-BFGS: its state as plain tensors, and what it refuses.

That it reaches scikit-learn's optimum is in models/test_logistic.py, that a run goes on exactly in fit/.
"""

import pytest
import torch
from torch import nn

import headway as hw
from headway.config.contracts import Place
from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.fit import prepare
from headway.optim import LBFGS, live_state, plain_state
from headway.recipe import load_recipe

pytestmark = pytest.mark.quick

TREE = {
    "model": {"kind": "mlp", "hidden": [5]},
    "data": "breast_cancer",
    "init": "xavier",
    "optim": {"kind": "lbfgs", "lr": 1.0, "max_iterations": 3},
    "trainer": {"max_steps": 6, "batch_size": 1000, "threads": 1},
    "track": {"wandb": "disabled"},
}


@pytest.mark.parametrize("line_search", ["strong_wolfe", "none"])
def test_state_comes_back_from_plain_tensors(line_search):
    net = nn.Linear(5, 3).double()
    x, target = torch.randn(7, 5, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    optimizer = LBFGS(kind="lbfgs", lr=0.5, max_iterations=2, history_size=3, line_search=line_search).build(net)

    def closure():
        optimizer.zero_grad()
        loss = (net(x) - target).pow(4).mean()
        loss.backward()
        return loss

    def two_steps():
        for _ in range(2):
            optimizer.step(closure)
        return net.weight.detach().clone()

    two_steps()
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    kept = {key: value.clone() for key, value in plain_state(optimizer.state[net.weight]).items()}
    expected = two_steps()
    assert not torch.equal(expected, weights["weight"])
    net.load_state_dict(weights)
    optimizer.state.clear()
    for key, value in kept.items():
        optimizer.state[net.weight].update(live_state(key, value))
    assert torch.equal(two_steps(), expected)


def test_a_decay_that_its_line_search_would_not_see_is_refused():
    with pytest.raises(
        UserError, match=r"^optim: weight_decay is no part of the loss .*; use regularize\.penalty\.l2$"
    ):
        validate_section(LBFGS, {"kind": "lbfgs", "lr": 1.0, "weight_decay": 0.1}, path="optim")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"trainer.batch_size": 32}, r"^trainer\.batch_size: 32 is part of 399 samples, and lbfgs needs them all"),
        ({"trainer.clip_norm": 1.0}, r"^trainer\.clip_norm: 1\.0, but lbfgs measures its steps by the gradient"),
        ({"trainer.clip_value": 0.1}, r"^trainer\.clip_value: 0\.1, but lbfgs measures its steps by the gradient"),
        ({"strategy": "fsdp", "trainer.devices": 2}, r"^optim\.kind: lbfgs needs whole weights .*; use strategy=ddp"),
    ],
)
def test_what_it_cannot_do_is_refused_before_anything_starts(tmp_path, changes, line):
    with pytest.raises(UserError, match=line):
        hw.fit(TREE, changes, runs=tmp_path, progress=False)
    assert not any(tmp_path.iterdir())


def test_a_precision_that_scales_the_gradient_is_refused():
    recipe = load_recipe(TREE, {"trainer.precision": "fp16-mixed", "trainer.accelerator": "cpu"})
    with pytest.raises(UserError, match=r"^trainer\.precision: fp16-mixed scales the gradient away from the loss"):
        prepare(recipe, Place(device="cuda"))
