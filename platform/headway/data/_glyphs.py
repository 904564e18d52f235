"""Digits that nobody wrote: strokes drawn here by hand and one printed font, distorted and reduced to 8x8 pixels.

A form of a digit is a few strokes in a box 6 wide and 10 high, y downwards. A sample wobbles their points, slants,
turns and squeezes them, draws them with a pen of some width into a bitmap of 32x32 as high as the digit, and counts
the ink of each 4x4 block, as the real ones were made.

Source: Alpaydin and Kaynak 1998 for the bitmaps and blocks; Simard, Steinkraus and Platt 2003 for the distortions.

Shapes: N samples, K points given by hand, P points of the curve through them, Y x X pixels.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_SIDE = 32
_BLOCK = 4
_PRINTED_SHARE = 0.1
"""Share of the samples that are of the font."""
_CHUNK = 64
"""Samples that are drawn at once: what they need stays in the cache."""
_PEN, _PEN_OF_ONE = (3.0, 7.0), (4.0, 11.0)
"""Least and greatest width of the pen, in pixels of the bitmap; a one has no hole that ink could fill."""
_PER_SPAN = 4
"""Points of the curve between two that are given."""


class Stroke(NamedTuple):
    """A line of the pen; a curve, closed where it ends at its beginning, or straight from point to point."""

    points: tuple[tuple[float, float], ...]
    curved: bool = True

    def matrix(self) -> Floats:
        """Returns (P, K), which makes points of the stroke from those that are given: a Catmull-Rom spline."""
        num_given = len(self.points)
        if not self.curved:
            return np.eye(num_given, dtype=np.float32)
        closed = self.points[0] == self.points[-1]
        rows = []
        for span in range(num_given - 1):
            around = [span - 1, span, span + 1, span + 2]
            if closed:
                # The last point is the first once more.
                around = [place % (num_given - 1) for place in around]
            else:
                around = [min(max(place, 0), num_given - 1) for place in around]
            for t in np.arange(_PER_SPAN) / _PER_SPAN:
                row = np.zeros(num_given, dtype=np.float32)
                weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
                for place, weight in zip(around, weights, strict=True):
                    row[place] += weight / 2
                rows.append(row)
        rows.append(rows[0] if closed else np.eye(num_given, dtype=np.float32)[-1])
        return np.stack(rows)


def _line(*points: tuple[float, float]) -> Stroke:
    return Stroke(points, curved=False)


def _curve(*points: tuple[float, float]) -> Stroke:
    return Stroke(points)


_STEM_OF_SEVEN = ((5.7, 0.4), (4.0, 4.5), (2.6, 10))
_FORMS: dict[int, tuple[tuple[Stroke, ...], ...]] = {
    0: (
        (_curve((3, 0), (0.7, 1.8), (0, 5), (0.7, 8.2), (3, 10), (5.3, 8.2), (6, 5), (5.3, 1.8), (3, 0)),),
        (_curve((3.8, 0.4), (1.2, 1.2), (0, 5), (0.8, 8.6), (3, 10), (5.4, 8.4), (5.9, 5), (4.8, 1.4), (2.4, 0)),),
    ),
    1: (
        (_line((3, 0), (3, 10)),),
        (_line((1.4, 2.6), (3, 0), (3, 10)),),
        (_line((0.4, 4.8), (2.9, 0), (3, 10)),),
        (_line((0, 4.4), (2, 2.8), (3.2, 0), (2.8, 10)),),
        (_line((0.8, 4), (3, 0), (3, 10)), _line((0.8, 10), (5.2, 10))),
    ),
    2: (
        (_curve((0.2, 2.2), (1.2, 0.5), (3, 0), (4.9, 1), (5, 3.2), (3.2, 6.4), (0, 10)), _line((0, 10), (6, 10))),
        (_curve((0.2, 1.8), (2.2, 0), (4.7, 1.2), (4.5, 4), (2.2, 8), (0.6, 9.4), (0, 8.6), (1.4, 8),
                (3.6, 9.4), (6, 9.6)),),
        (_curve((0.5, 1.2), (2.8, 0), (4.6, 1.6), (3.6, 5), (0.4, 9.4), (2.8, 9.2), (6, 9.8)),),
    ),
    3: (
        (_curve((0.3, 1.2), (2.6, 0), (5, 1.2), (4.8, 3.4), (2.2, 4.8)),
         _curve((2.2, 4.8), (5, 5.4), (5.8, 7.6), (3.8, 9.8), (0.2, 9))),
        (_line((0.2, 0.2), (5.4, 0.2), (2.6, 4)), _curve((2.6, 4), (5.2, 5), (5.6, 8), (3.2, 10), (0, 9))),
        (_curve((0.2, 0.6), (3, 0), (5, 1.4), (3.4, 4.2), (1.8, 5), (3.8, 5.2), (5.6, 7.2), (4, 9.6), (0.2, 9.8)),),
    ),
    4: (
        (_line((2, 0), (0, 5.6), (6, 5.6)), _line((4.4, 2.6), (4.0, 10))),
        (_line((4.2, 0), (0, 6.6), (6, 6.6)), _line((4.2, 0), (4.2, 10))),
        (_curve((3.6, 0), (1.4, 3), (0, 5.6), (2.6, 6.4), (5.6, 5.6)), _line((5, 3.2), (3, 10))),
        (_curve((1, 0), (0.4, 3.6), (2, 5.4), (5, 5)), _line((5.2, 0.4), (4.6, 10))),
    ),
    5: (
        (_line((5.4, 0.2), (1.2, 0), (0.6, 4.2)), _curve((0.6, 4.2), (3, 3.6), (5.4, 5.2), (5.2, 8.2),
                (3.2, 10), (0.2, 9.4))),
        (_curve((5, 0.2), (1.6, 0.4), (0.8, 3.6), (3.8, 4.4), (5.2, 7), (3.4, 9.6), (0.4, 9.8)),),
        (_curve((6, 0.2), (2.4, 0.2), (1, 2), (1.8, 4.2), (3.6, 6), (3.4, 8.6), (1, 10)),),
        (_line((5.8, 0), (1, 0.4), (1, 4.6)), _curve((1, 4.6), (3.8, 4.4), (4.6, 6.6), (3.2, 9), (0.6, 10))),
    ),
    6: (
        (_curve((4.4, 0), (1.6, 2.6), (0.2, 6.4), (1, 9.2), (3.2, 10), (5.6, 8.4), (4.8, 6), (2.6, 5.8), (0.6, 7.6)),),
        (_curve((2.6, 0), (0.8, 3.4), (0.2, 7.2), (1.6, 9.8), (4.2, 9.8), (5.6, 8), (4.2, 6.2), (1.8, 6.8), (1, 8.4)),),
    ),
    7: (
        (_line((0, 0.3), *_STEM_OF_SEVEN),),
        (_line((0, 0.3), *_STEM_OF_SEVEN), _line((1.4, 5), (6, 4.6))),
        (_curve((0, 1.8), (1.2, 0.4), (3.4, 0.8), (5.7, 0.4)), _line(*_STEM_OF_SEVEN), _line((1, 5.2), (6, 4.6))),
        (_curve((0, 1.2), (2.6, 0), (5, 0.6), (4.8, 3.6), (3, 10)), _line((1.2, 5.4), (6, 4.8))),
    ),
    8: (
        (_curve((5, 1.6), (3, 0), (0.9, 1.6), (1.6, 3.6), (4.4, 6), (5.3, 8), (3, 10), (0.7, 8), (1.6, 6),
                (4.4, 3.6), (5, 1.6)),),
        (_curve((3, 0), (1, 1.2), (1, 3.4), (3, 4.6), (5, 3.4), (5, 1.2), (3, 0)),
         _curve((3, 4.6), (0.6, 6), (0.6, 8.6), (3, 10), (5.4, 8.6), (5.4, 6), (3, 4.6))),
        (_curve((5.2, 0.8), (3, 0), (1, 1.6), (2.2, 4), (4.4, 6.6), (3.6, 9.6), (1.6, 9.6), (1, 7.6),
                (3.2, 4.6), (5, 1.4)),),
        (_curve((5.4, 1.8), (3.2, 0), (0.6, 1.6), (1.4, 4.2), (4, 6.8), (4.2, 9), (2.8, 10), (1.4, 9),
                (2.2, 6.6), (4.8, 4.2), (5.4, 1.8)),),
    ),
    9: (
        (_curve((5.2, 1.6), (3, 0), (0.7, 1), (0.4, 3.4), (2.4, 4.8), (4.6, 3.8), (5.2, 1.6)),
         _curve((5.2, 1.6), (5.2, 5), (4.4, 10))),
        (_curve((5, 1.8), (3, 0), (0.7, 1.2), (0.6, 3.4), (2.6, 4.6), (4.6, 3.4), (5, 1.8)),
         _curve((5, 1.8), (5.6, 6), (4.4, 9.4), (2.2, 10), (0.4, 9.2))),
    ),
}  # fmt: skip


def draw_digits(label_N: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Returns (N, 8, 8), each pixel the ink of its block from 0 to 16, of a digit for each label."""
    bitmap_NYX = np.zeros((len(label_N), _SIDE, _SIDE), dtype=np.float32)
    printed_N = generator.random(len(label_N)) < _PRINTED_SHARE
    form_N = generator.random(len(label_N))
    for digit, forms in _FORMS.items():
        of_digit_N = label_N == digit
        bitmap_NYX[of_digit_N & printed_N] = _print(digit, int((of_digit_N & printed_N).sum()), generator)
        which_N = (form_N * len(forms)).astype(np.int64)
        for number, strokes in enumerate(forms):
            chosen_N = of_digit_N & ~printed_N & (which_N == number)
            bitmap_NYX[chosen_N] = _draw(
                strokes, int(chosen_N.sum()), generator, pen=_PEN_OF_ONE if digit == 1 else _PEN
            )
    num_blocks = _SIDE // _BLOCK
    blocks = (bitmap_NYX > 0.5).reshape(-1, num_blocks, _BLOCK, num_blocks, _BLOCK)
    return np.asarray(blocks.sum((2, 4)), dtype=np.uint8)


# ---- strokes ---------------------------------------------------------------------------------------


def _draw(
    strokes: tuple[Stroke, ...], count: int, generator: np.random.Generator, *, pen: tuple[float, float]
) -> Floats:
    """Returns bitmaps (count, Y, X) of one form of a digit, ink 1."""
    given_K2 = np.concatenate([stroke.points for stroke in strokes]).astype(np.float32)
    points_NK2 = given_K2 + _wobble(given_K2, count, generator)
    points_NK2 = _affine(points_NK2 - (3, 5), generator)
    starts = np.cumsum([0, *(len(stroke.points) for stroke in strokes)])
    curves = [
        np.einsum("pk,nkc->npc", stroke.matrix(), points_NK2[:, start : start + len(stroke.points)])
        for stroke, start in zip(strokes, starts, strict=False)
    ]
    width_N = generator.uniform(*pen, count).astype(np.float32)
    curves = _fit(curves, width_N)
    bitmap_NYX = np.empty((count, _SIDE, _SIDE), dtype=np.float32)
    for start in range(0, count, _CHUNK):
        part = slice(start, start + _CHUNK)
        distance_NYX = _distance([curve[part] for curve in curves])
        bitmap_NYX[part] = distance_NYX < width_N[part, None, None] / 2
    return bitmap_NYX


def _wobble(given_K2: Floats, count: int, generator: np.random.Generator) -> Floats:
    """Returns how far each point of each sample is moved; points in the same place move together."""
    places, which_K = np.unique(given_K2, axis=0, return_inverse=True)
    moved = generator.normal(0, 0.35, (count, len(places), 2)).astype(np.float32)
    return moved[:, which_K.reshape(-1)]


def _affine(points_NP2: NDArray[Any], generator: np.random.Generator) -> Floats:
    """Returns the points slanted, made narrower or wider, and turned, each sample in its own way."""
    count = len(points_NP2)
    slant_N, turn_N = generator.normal(0.1, 0.2, count), generator.normal(0, 0.12, count)
    narrow_N = np.exp(generator.normal(0, 0.2, count))
    x_NP, y_NP = points_NP2[..., 0] * narrow_N[:, None], points_NP2[..., 1]
    x_NP = x_NP - slant_N[:, None] * y_NP
    cosine_N1, sine_N1 = np.cos(turn_N)[:, None], np.sin(turn_N)[:, None]
    turned = np.stack([cosine_N1 * x_NP - sine_N1 * y_NP, sine_N1 * x_NP + cosine_N1 * y_NP], axis=-1)
    return turned.astype(np.float32)


def _fit(curves: list[Floats], width_N: Floats) -> list[Floats]:
    """Returns the curves in pixels: as high as the bitmap, centred, squeezed where they are wider than it."""
    every_NP2 = np.concatenate(curves, axis=1)
    least_N2, most_N2 = every_NP2.min(1), every_NP2.max(1)
    extent_N2 = np.maximum(most_N2 - least_N2, 1e-3)
    room_N = _SIDE - width_N
    scale_N = room_N / extent_N2[:, 1]
    scale_N2 = np.stack([np.minimum(scale_N, room_N / extent_N2[:, 0]), scale_N], axis=1)
    centre_N2 = (least_N2 + most_N2) / 2
    return [(curve - centre_N2[:, None]) * scale_N2[:, None] + _SIDE / 2 for curve in curves]


def _distance(curves: list[Floats]) -> Floats:
    """Returns each pixel's distance from the nearest point of the curves, (N, Y, X)."""
    pixel = np.arange(_SIDE, dtype=np.float32) + 0.5
    nearest_NYX = np.full((len(curves[0]), _SIDE, _SIDE), np.inf, dtype=np.float32)
    for curve in curves:
        for place in range(curve.shape[1] - 1):
            start_N2, step_N2 = curve[:, place], curve[:, place + 1] - curve[:, place]
            length_N = np.maximum((step_N2**2).sum(1), 1e-6)
            dx_N1X = (pixel - start_N2[:, :1])[:, None, :]
            dy_NY1 = (pixel - start_N2[:, 1:])[:, :, None]
            ux_N11, uy_N11 = (step_N2 / length_N[:, None]).T[..., None, None]
            along_NYX = np.clip(dx_N1X * ux_N11 + dy_NY1 * uy_N11, 0, 1)
            sx_N11, sy_N11 = step_N2.T[..., None, None]
            square_NYX = (dx_N1X - along_NYX * sx_N11) ** 2
            square_NYX += (dy_NY1 - along_NYX * sy_N11) ** 2
            np.minimum(nearest_NYX, square_NYX, out=nearest_NYX)
    return np.asarray(np.sqrt(nearest_NYX))


# ---- print -----------------------------------------------------------------------------------------


def _print(digit: int, count: int, generator: np.random.Generator) -> Floats:
    """Returns bitmaps (count, Y, X) of the font's digit: pixels looked up where the distortion takes them from."""
    ink_YX = _font_ink(digit)
    height, width = ink_YX.shape
    pixel = (np.arange(_SIDE) + 0.5) / _SIDE * 2 - 1
    grid = np.stack(np.meshgrid(pixel, pixel), axis=-1).reshape(1, -1, 2).repeat(count, axis=0)
    # The distortions of strokes, the other way round.
    from_NP2 = _affine(grid * (3, 5), generator) / (3, 5)
    wave_N12 = generator.uniform(0, 0.1, (count, 1, 2))
    phase_N12 = generator.uniform(0, 2 * np.pi, (count, 1, 2))
    from_NP2 = from_NP2 + wave_N12 * np.sin(3 * from_NP2[..., ::-1] + phase_N12)
    # Equal in both directions; a little room above and below.
    zoom = 1.08 * np.array([height / width, 1.0])
    x_NP = np.rint((from_NP2[..., 0] * zoom[0] + 1) / 2 * width - 0.5).astype(np.int64)
    y_NP = np.rint((from_NP2[..., 1] * zoom[1] + 1) / 2 * height - 0.5).astype(np.int64)
    inside_NP = (x_NP >= 0) & (x_NP < width) & (y_NP >= 0) & (y_NP < height)
    ink_NP = ink_YX[y_NP.clip(0, height - 1), x_NP.clip(0, width - 1)] * inside_NP
    return np.asarray(ink_NP, dtype=np.float32).reshape(count, _SIDE, _SIDE)


@cache
def _font_ink(digit: int) -> Floats:
    """Returns the printed digit, large, cut to its ink: from 0 to 1."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("L", (192, 192))
    ImageDraw.Draw(picture).text((32, 16), str(digit), fill=255, font=ImageFont.load_default(128))
    box = picture.getbbox()
    assert box is not None, "a digit has ink"
    return np.asarray(picture.crop(box), dtype=np.float32) / np.float32(255)
