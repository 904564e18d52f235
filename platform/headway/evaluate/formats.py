"""What a net can be exported to, and what that needs; known before torch is imported."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, cast, get_args

from headway.config.errors import UserError, suggestion

Format = Literal["safetensors", "onnx", "huggingface"]
_NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime")}


def check_format(name: str) -> Format:
    """Returns the format.

    Raises:
        UserError: it is not known, or what it needs is not installed.
    """
    if name not in get_args(Format):
        raise UserError(f"--to: {name!r} is not known{suggestion(name, get_args(Format))}")
    missing = [package for package in _NEEDS.get(name, ()) if find_spec(package) is None]
    if missing:
        raise UserError(f"--to: {name} needs {', '.join(missing)}; pip install 'headway[{name}]'")
    return cast(Format, name)
