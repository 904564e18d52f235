"""Logistic regression against scikit-learn's, on the same data with the same penalty."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression

import headway as hw
from headway.config.contracts import DataSpec
from headway.config.errors import UserError
from headway.models import logistic
from headway.recipe import load_recipe

L2 = 0.01


def fitted(folder, form):
    """Returns the weight and bias of a recipe trained to the optimum, and the training rows it was trained on."""
    tree = {
        "model": {"kind": "logistic", "form": form},
        "data": "breast_cancer",
        "init": {"kind": "constant"},
        "optim": {"kind": "lbfgs", "lr": 1.0, "max_iterations": 50},
        "regularize": {"penalty": {"l2": L2}},
        "trainer": {"max_steps": 20, "batch_size": 1000, "precision": "fp64", "validate_every": 20, "threads": 1},
        "track": {"wandb": "disabled"},
    }
    result = hw.fit(tree, runs=folder, name=form, progress=False)
    weights = load_file(f"{result.run_dir}/checkpoints/{result.step:08d}/weights.safetensors")
    train = load_recipe(tree).data.load().train
    rows = train.gather(torch.arange(len(train)), epoch=0)
    return weights["linear.weight"].numpy(), weights["linear.bias"].numpy(), rows


@pytest.mark.parametrize("form", ["sigmoid", "softmax"])
def test_the_coefficients_are_those_of_scikit_learn(tmp_path, form):
    weight, bias, rows = fitted(tmp_path, form)
    x, target = rows["input"].double().numpy(), rows["target"].numpy()
    # scikit-learn sums the loss and prices half of C's inverse; ours is a mean. Two logits share the price of their
    # difference: w and -w cost half of what 2w alone does.
    strength = 1 / (L2 * len(x)) * (1 if form == "sigmoid" else 2)
    theirs = LogisticRegression(C=strength, tol=1e-12, max_iter=10_000).fit(x, target)
    ours = weight[0] if form == "sigmoid" else weight[1] - weight[0]
    offset = bias[0] if form == "sigmoid" else bias[1] - bias[0]
    np.testing.assert_allclose(ours, theirs.coef_[0], atol=1e-3)
    np.testing.assert_allclose(offset, theirs.intercept_[0], atol=1e-3)


@pytest.mark.quick
def test_a_sigmoid_is_a_softmax_over_a_logit_and_zero():
    net = logistic.Config(kind="logistic", form="sigmoid").build(DataSpec("features", (5,), num_classes=2))
    x = torch.randn(3, 5)
    torch.testing.assert_close(net(x).softmax(1)[:, 1], net.linear(x)[:, 0].sigmoid())
    with pytest.raises(UserError, match=r"model.form: sigmoid tells two classes apart, and this data has 3"):
        logistic.Config(kind="logistic", form="sigmoid").build(DataSpec("features", (5,), num_classes=3))
