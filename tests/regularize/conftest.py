"""What the tests of techniques share: an engine over a net, without a Trainer."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from headway.config.contracts import Place
from headway.strategies._single import Single


@pytest.fixture
def engine_of() -> Callable[..., Any]:
    """Returns a function that gives the single process's engine of a net, as a training would have it."""

    def build(net: nn.Module, *, lr: float = 0.5, momentum: float = 0.0) -> Single:
        engine = Single(Place())
        engine._lightning_module = SimpleNamespace(net=net)
        engine.optimizers = [torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)]
        return engine

    return build
