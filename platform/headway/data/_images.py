"""Images that are held whole as uint8: the files they come in, and how they become parts.

Shapes: N images, C channels.
"""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headway.config.contracts import Data, DataSpec
from headway.config.errors import UserError
from headway.data._splits import Scaling, TensorSplit, fingerprint_arrays, pixel_scaling, shuffled_parts

_IDX_UINT8 = 0x08


def read_idx(path: Path, *, num_axes: int, setting: str) -> NDArray[np.uint8]:
    """Returns the array of an IDX file, plain or .gz.

    The header is two zero bytes, the type of the values (8: unsigned bytes), the number of axes, and
    each axis' size as a big-endian 32-bit number. Source: LeCun, Cortes and Burges, the MNIST page.

    Args:
        path: of the file.
        num_axes: 3 for images, 1 for labels.
        setting: the recipe's setting that led here, named in errors.

    Raises:
        UserError: a file that cannot be read, is of another kind, or is shorter or longer than it says.
    """
    raw = _read(path, setting)
    header_bytes = 4 + 4 * num_axes
    if raw[:4] != bytes([0, 0, _IDX_UINT8, num_axes]):
        raise UserError(
            f"{setting}: {path} starts with {raw[:4].hex(' ') or 'nothing'}, which is no IDX file of bytes with "
            f"{num_axes} {'axis' if num_axes == 1 else 'axes'} (00 00 08 {num_axes:02x}); fetch it again"
        )
    if len(raw) < header_bytes:
        raise UserError(f"{setting}: {path} is truncated: {len(raw)} bytes are not even a header; fetch it again")
    shape = tuple(int(size) for size in np.frombuffer(raw[4:header_bytes], ">u4"))
    expected = header_bytes + prod(shape)
    if len(raw) != expected:
        problem = "is truncated" if len(raw) < expected else "is too long"
        raise UserError(f"{setting}: {path} {problem}: {len(raw):,} bytes, not {expected:,}; fetch it again")
    return np.frombuffer(raw, np.uint8, offset=header_bytes).reshape(shape)


def _read(path: Path, setting: str) -> bytes:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return file.read()
        return path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{setting}: {path} is truncated or no gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise UserError(f"{setting}: {path} cannot be read ({error.strerror or error})") from None


def check_labels(label_N: Tensor, path: Path, *, num_classes: int, setting: str) -> None:
    """Raises a UserError for a label that is no class."""
    if len(label_N) and int(label_N.max()) >= num_classes:
        row = int(label_N.argmax())
        raise UserError(
            f"{setting}: {path} has label {int(label_N[row])} at image {row}; there are classes 0 to {num_classes - 1}"
        )


def held_out_images(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    validation: float,
    seed: int,
    class_names: tuple[str, ...],
    layout: Literal["features", "image"] = "image",
    pad: int = 0,
) -> Data:
    """Returns images with their own test part, a validation part split off the training images.

    Args:
        train: uint8 images (N, C, height, width) and int64 labels (N,).
        test: likewise.
        validation: fraction of the training images.
        seed: of that split.
        class_names: one a class.
        layout: whether a sample is an image or flat.
        pad: zeros (black) on each side, in pixels.
    """
    parts = shuffled_parts(len(train[0]), {"validation": validation}, seed)
    fingerprint = fingerprint_arrays(*train, *test)
    # Padding is no part of the statistics: they are those of the pictures themselves.
    scaling = pixel_scaling(train[0][parts[0]])
    pools = []
    for images, label_N in (train, test):
        padded = torch.nn.functional.pad(images, (pad,) * 4) if pad else images
        pools.append((padded, label_N))
    shape = tuple(pools[0][0].shape[1:])
    channels, height, width = train[0].shape[1:]
    reading = {
        "image": {"channels": channels, "height": height, "width": width, "largest": 255, "pad": pad},
        "scaling": scaling.plain(),
    }
    if layout == "features":
        mean, std = (statistic.expand(shape).reshape(-1) for statistic in (scaling.mean, scaling.std))
        scaling = Scaling(mean, std)
        pools = [(images.flatten(1), label_N) for images, label_N in pools]
        shape = (prod(shape),)
    (images, label_N), (test_images, test_label_N) = pools
    train_split, validation_split = (
        TensorSplit({"input": images[part], "target": label_N[part]}, scaling=scaling) for part in parts
    )
    test_split = TensorSplit({"input": test_images, "target": test_label_N}, scaling=scaling)
    spec = DataSpec(input_kind=layout, input_shape=shape, num_classes=len(class_names), class_names=class_names)
    return Data(spec, train_split, validation_split, test_split, fingerprint, reading=reading)
