"""Small motions of images: turned about their middle, shifted, read off between their pixels.

Each image moves by its own angle and shift, and comes back in its own size. Source: Simard,
Steinkraus and Platt 2003, section 2 (affine distortions, bilinear interpolation); Krizhevsky et al. 2012,
section 4.1.

Shapes: B images, C channels, Y x X pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Border = Literal["mean", "edge"]


def move(x_BCYX: Tensor, *, angle_B: Tensor, shift_B2: Tensor, border: Border = "mean") -> Tensor:
    """Returns the images turned, then shifted.

    Args:
        x_BCYX: standardised images.
        angle_B: radians, counter-clockwise as one looks at an image.
        shift_B2: pixels down and to the right.
        border: what comes in from outside: `mean` is zero, the mean of standardised pixels; `edge` repeats the
            outermost pixels.
    """
    *_, height, width = x_BCYX.shape
    dtype = torch.promote_types(x_BCYX.dtype, torch.float32)
    # Each pixel's distance from the middle, and where it was before: the motion undone.
    y_Y1, x_X = (torch.arange(size, device=x_BCYX.device, dtype=dtype) - (size - 1) / 2 for size in (height, width))
    y_BY1 = y_Y1[:, None] - shift_B2[:, 0, None, None].to(dtype)
    x_B1X = x_X - shift_B2[:, 1, None, None].to(dtype)
    cos_B11, sin_B11 = (function(angle_B.to(dtype))[:, None, None] for function in (torch.cos, torch.sin))
    from_x_BYX = cos_B11 * x_B1X - sin_B11 * y_BY1
    from_y_BYX = sin_B11 * x_B1X + cos_B11 * y_BY1
    grid_BYX2 = torch.stack([from_x_BYX * (2 / width), from_y_BYX * (2 / height)], dim=-1)
    padding_mode = "zeros" if border == "mean" else "border"
    moved = F.grid_sample(x_BCYX.to(dtype), grid_BYX2, mode="bilinear", padding_mode=padding_mode, align_corners=False)
    return moved.to(x_BCYX.dtype)
