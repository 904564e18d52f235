"""Lessons of the first nets: what a hidden layer, a loss, a non-linearity and a start are worth."""

from __future__ import annotations

import pytest
import torch

from headway.objectives.classify import squared_error
from headway.recipe import load_recipe
from headway.training import build_net

pytestmark = pytest.mark.slow


def first_gradient(recipe: str, loss=torch.nn.functional.cross_entropy) -> dict[str, float]:
    """Returns the norm of each weight's gradient before the first step, over 64 samples of the training part."""
    loaded = load_recipe(recipe)
    data = loaded.data.load()
    net = build_net(loaded, data)
    batch = data.train.gather(torch.arange(64), epoch=0)
    loss(net(batch["input"]), batch["target"]).mean().backward()
    return {name: float(weight.grad.norm()) for name, weight in net.named_parameters()}


def test_two_hidden_units_separate_what_a_line_cannot(train) -> None:
    def best_of_three(recipe: str) -> float:
        return max(train(recipe, seed=seed).metrics["test/accuracy"] for seed in range(3))

    # A line has three of the four corners right at most. So small a net may be stuck; not from each of three starts.
    assert best_of_three("xor-logistic") < 0.85
    assert best_of_three("xor-tanh") > 0.97
    assert best_of_three("xor-sigmoid") > 0.97


def test_squared_loss_saturates_where_cross_entropy_does_not(train) -> None:
    squared = train("loss-squared").metrics["test/accuracy"]
    cross_entropy = train("loss-cross-entropy").metrics["test/accuracy"]
    assert cross_entropy > squared + 0.25


def test_the_squared_loss_of_a_net_that_is_sure_has_next_to_no_gradient() -> None:
    squared = first_gradient("loss-squared", squared_error)["hidden.0.linear.weight"]
    cross_entropy = first_gradient("loss-cross-entropy")["hidden.0.linear.weight"]
    assert cross_entropy > 10 * squared


def test_rectifiers_train_at_a_depth_where_sigmoids_do_not(train) -> None:
    changes = {"trainer.max_epochs": 8, "trainer.validate_every": 1000}
    assert train("depth-relu", changes).metrics["test/accuracy"] > 0.85
    assert train("depth-sigmoid", changes).metrics["test/accuracy"] < 0.3


def test_the_gradient_of_the_first_layer_is_lost_below_sigmoids_and_kept_below_rectifiers() -> None:
    sigmoid, relu = first_gradient("depth-sigmoid"), first_gradient("depth-relu")
    first, last = "hidden.0.linear.weight", "hidden.7.linear.weight"
    assert sigmoid[first] < 1e-3 * sigmoid[last]
    assert relu[first] > 0.1 * relu[last]


def test_the_same_net_learns_from_the_right_start_alone(train) -> None:
    changes = {"trainer.max_epochs": 8, "trainer.validate_every": 1000}
    tiny, right, large = (
        train(f"init-{start}", changes).metrics["test/accuracy"] for start in ("tiny", "right", "large")
    )
    assert tiny < 0.3
    assert right > tiny + 0.5
    assert right > large + 0.1


def test_hidden_units_that_start_alike_stay_alike_and_are_worth_one(train, weights_of) -> None:
    constant, random = train("symmetry-constant"), train("symmetry-random")
    alike, apart = (weights_of(run)["hidden.0.linear.weight"].std(0).mean() for run in (constant, random))
    assert alike < 1e-3 * apart
    one_unit = train("symmetry-random", {"model.hidden": [1]})
    assert random.metrics["test/accuracy"] > constant.metrics["test/accuracy"] + 0.3
    assert constant.metrics["test/accuracy"] < one_unit.metrics["test/accuracy"] + 0.2
