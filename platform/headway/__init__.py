"""headway trains any neural network from a one-page recipe, on one process or many, the same."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headway.fit import FitResult, fit
    from headway.recipe import Recipe, load_recipe
    from headway.sweep import SweepResult, sweep

__version__ = "0.1.0"
__all__ = ["FitResult", "Recipe", "SweepResult", "fit", "load_recipe", "sweep"]

_HOMES = {
    "FitResult": "headway.fit",
    "Recipe": "headway.recipe",
    "SweepResult": "headway.sweep",
    "fit": "headway.fit",
    "load_recipe": "headway.recipe",
    "sweep": "headway.sweep",
}


class _Package(ModuleType):
    """Keeps `headway.fit` the function, when importing the module of that name would replace it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """Imports on first use, so that `headway --help` imports no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'headway' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
