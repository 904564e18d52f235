"""headway trains any neural network from a one-page recipe, on one process or many, the same."""

from __future__ import annotations

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


def __getattr__(name: str) -> Any:
    """Imports on first use, so that `headway --help` imports no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'headway' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
