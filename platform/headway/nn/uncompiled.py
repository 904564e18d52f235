"""Functions that a compiler leaves out of its graphs.

`torch.compiler.disable` says so at once, and imports the compiler with it: a second and 70 MB for every process that
compiles nothing, such as a sweep's. Here it is said once something is compiled, or may be (`leave_out`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_MARKED: list[Callable[[], None]] = []


def uncompiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Returns a function that a compiler calls and does not look into."""
    current = function

    def disable() -> None:
        nonlocal current
        current = torch.compiler.disable(function)  # type: ignore[no-untyped-call]

    @wraps(function)
    def call(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> Result:
        if torch.compiler.is_compiling():
            leave_out()
        return current(*arguments, **keywords)

    if "torch._dynamo" in sys.modules:
        disable()
    else:
        _MARKED.append(disable)
    return call


def leave_out() -> None:
    """Tells torch's compiler of every function that is marked."""
    while _MARKED:
        _MARKED.pop()()
