"""An image file as pixels of the size that a net reads.

The shorter side is resized to it and the centre cropped; a file of that size already is left as it is.

Shapes: H height, W width, C channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headway.config.errors import UserError


def read_picture(path: str | Path, *, channels: int, height: int, width: int, setting: str) -> NDArray[np.uint8]:
    """Returns (H, W, C), of 1 channel or 3; colours become grey and the other way round as the net needs it.

    Raises:
        UserError: a file that is missing or no image, by name, with the setting that led there.
    """
    from PIL import Image

    mode = "L" if channels == 1 else "RGB"
    try:
        with Image.open(path) as file:
            # A JPEG can be decoded at a half, a quarter or an eighth of its size, which is most of the work saved.
            file.draft(mode, (2 * width, 2 * height))
            # Of two bytes a pixel the upper one: Pillow would cut off all above 255.
            deep = file.mode.startswith("I;16")
            image = (Image.fromarray((np.asarray(file) >> 8).astype(np.uint8)) if deep else file).convert(mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{setting}: {path} cannot be decoded ({error}); replace it or take it away") from None
    scale = max(width / image.width, height / image.height)
    resized = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    image = image.resize(resized, Image.Resampling.BILINEAR)
    left, top = (resized[0] - width) // 2, (resized[1] - height) // 2
    return np.asarray(image.crop((left, top, left + width, top + height))).reshape(height, width, channels)
