"""torchvision's models, to hold ours against."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

# Beside the environment and not in it: lightning imports whatever torchvision it finds, and beside the CPU build
# of torch that fails unless two operators are declared first. `make setup` puts it there.
_REFERENCES = Path(sys.prefix) / "references"
_OPERATORS = ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",)


@pytest.fixture(scope="session")
def torchvision_models() -> Iterator[ModuleType]:
    """Returns `torchvision.models`; skips where it was not installed."""
    if not (_REFERENCES / "torchvision").is_dir():
        pytest.skip(f"torchvision is not in {_REFERENCES}")
    library = torch.library.Library("torchvision", "DEF")
    for operator in (*_OPERATORS, _OPERATORS[0].replace("nms", "qnms")):
        library.define(operator)
    sys.path.insert(0, str(_REFERENCES))
    try:
        import torchvision.models
    finally:
        sys.path.remove(str(_REFERENCES))
    yield torchvision.models
    del library
