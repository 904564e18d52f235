"""A net as an ONNX graph with any number of rows, and what onnxruntime makes of it.

A recurrent layer becomes as many copies of its step as a sequence has: the exporter takes minutes over long ones.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from headway.config.errors import UserError

_IN_ONE_FILE_BYTES = 1 << 30
"""Weights up to which the graph holds them itself; a file of its format ends at twice that."""
_INPUT_NAMES = {1: ["input"], 2: ["source", "decoder_input"]}


class _OfInputs(nn.Module):
    """A net as a function of its inputs alone: without random draws and without a carried state."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Returns the net's outputs."""
        found: Tensor | tuple[Tensor, ...] = self.net(*inputs)
        return tuple(found) if isinstance(found, tuple) else found


def save_graph(net: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> None:
    """Writes a net's graph.

    Args:
        net: in evaluation mode, on the CPU.
        inputs: an example of two rows.
        path: of the file.

    Raises:
        UserError: the exporter cannot write this net.
    """
    num_bytes = sum(weight.nbytes for weight in net.state_dict().values())
    with torch.no_grad():
        found = net(*inputs)
    names = list(getattr(found, "_fields", ["output"]))
    rows = torch.export.Dim("rows", min=1)
    try:
        with _quiet():
            torch.onnx.export(
                _OfInputs(net),
                inputs,
                path,
                dynamo=True,
                input_names=_INPUT_NAMES[len(inputs)],
                output_names=names,
                dynamic_shapes=(tuple({0: rows} for _ in inputs),),
                external_data=num_bytes > _IN_ONE_FILE_BYTES,
                verbose=False,
            )
    except Exception as error:  # torch's exporter raises classes of its own, and whatever its parts raise
        problem = str(error).strip().split("\n", 1)[0]
        raise UserError(
            f"--to: onnx cannot hold this net ({type(error).__name__}: {problem}); use safetensors"
        ) from None


def outputs_of_graph(path: Path, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Returns what onnxruntime computes on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    fed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    return [torch.from_numpy(value) for value in session.run(None, fed)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's progress and its advice off the screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
