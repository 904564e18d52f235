"""How an attack is written on the command line; known before torch is imported."""

from __future__ import annotations

import math

from headway.config.errors import UserError


def parse_attack(text: str) -> float:
    """Returns the epsilon of `fgsm:EPSILON`: how far each value of an input is moved.

    Raises:
        UserError: it is something else.
    """
    method, _, number = text.partition(":")
    try:
        epsilon = float(number)
    except ValueError:
        epsilon = math.nan
    if method != "fgsm" or not 0.0 < epsilon < math.inf:
        raise UserError(f"--attack: {text!r} should be fgsm:EPSILON, such as fgsm:0.1")
    return epsilon
