"""The net that a stack calls with the weights of each row: the rows' own, of operations that batch over rows."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn

from headway.fused.recurrent import run_rows
from headway.nn.attention import CausalSelfAttention, MultiHeadAttention
from headway.nn.dropout import Dropout
from headway.nn.recurrent import RecurrentLayer
from headway.nn.variational_dropout import VariationalDropout


def build_template(nets: Sequence[nn.Module]) -> tuple[nn.Module, dict[int, list[float]]]:
    """Returns a net that drops out wherever one of the rows does, and the rows' dropout rates by layer.

    Args:
        nets: of the rows, the same but for weights and rates.
    """
    template = copy.deepcopy(nets[0]).train()
    rates: dict[int, list[float]] = {}
    for name, module in template.named_modules():
        if isinstance(module, Dropout | VariationalDropout):
            rates[module.stream] = of_rows = [_rate(net.get_submodule(name)) for net in nets]
            module.rate = 0.5 if any(of_rows) else 0.0
        elif isinstance(module, CausalSelfAttention | MultiHeadAttention):
            module.fused = False
        elif isinstance(module, RecurrentLayer):
            module.runner = run_rows
    return template, rates


def _rate(module: nn.Module) -> float:
    assert isinstance(module, Dropout | VariationalDropout)
    return module.rate
