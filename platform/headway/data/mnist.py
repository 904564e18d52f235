"""MNIST and what is distributed like it: four IDX files of grey images and their labels.

Source: LeCun, Bottou, Bengio and Haffner 1998; Fashion-MNIST is Xiao, Rasul and Vollgraf 2017.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from headway.config.contracts import Data, DataConfig
from headway.config.errors import UserError
from headway.data._images import check_labels, held_out_images, read_idx
from headway.data._store import dataset_folder

_DIGITS = tuple(str(digit) for digit in range(10))
_CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


class Config(DataConfig):
    """Configures the files of one folder: 10 classes, normalised by the training images' own statistics."""

    folder: str | None = None
    """Folder of the IDX files, plain or .gz; a plain name such as fashion_mnist is one of the data home's."""
    layout: Literal["features", "image"] = "image"
    """Shape of a sample: flat, or an image of 1 channel."""
    pad: int = Field(default=0, ge=0, le=64)
    """Black pixels on each side; 2 makes 28x28 into 32x32."""
    validation: float = Field(default=0.1, gt=0, lt=1)
    """Fraction of the training file held out to choose by; the test file is the test part."""

    def load(self) -> Data:
        """Returns the images in three parts.

        Raises:
            UserError: a missing, truncated or wrong file, by name.
        """
        folder = dataset_folder(self.folder, default="mnist")
        train = _read_pair(folder, "train")
        test = _read_pair(folder, "t10k")
        if train[0].shape[1:] != test[0].shape[1:]:
            raise UserError(
                f"data.folder: {folder} has training images of {_size(train[0])} and test images of {_size(test[0])}; "
                "the files belong to different data sets"
            )
        fashion = folder.name.replace("-", "_") == "fashion_mnist"
        return held_out_images(
            train,
            test,
            validation=self.validation,
            seed=self.split_seed(),
            class_names=_CLOTHES if fashion else _DIGITS,
            layout=self.layout,
            pad=self.pad,
        )


def _read_pair(folder: Path, prefix: str) -> tuple[Tensor, Tensor]:
    """Returns uint8 images (N, 1, height, width) and int64 labels (N,)."""
    images_path = _find(folder, f"{prefix}-images-idx3-ubyte")
    labels_path = _find(folder, f"{prefix}-labels-idx1-ubyte")
    images = read_idx(images_path, num_axes=3, setting="data.folder")
    labels = read_idx(labels_path, num_axes=1, setting="data.folder")
    if len(images) != len(labels):
        raise UserError(f"data.folder: {images_path} has {len(images):,} images, {labels_path} {len(labels):,} labels")
    if images.size == 0:
        raise UserError(f"data.folder: {images_path} has no images; fetch it again")
    label_N = torch.from_numpy(labels.astype("int64"))
    check_labels(label_N, labels_path, num_classes=10, setting="data.folder")
    return torch.from_numpy(images.copy()).unsqueeze(1), label_N


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    known = folder.name if folder.name == "fashion_mnist" else "mnist"
    raise UserError(
        f"data.folder: {folder} has no {name} or {name}.gz; run headway data fetch {known}, or name the folder that has"
    )


def _size(images: Tensor) -> str:
    return f"{images.shape[2]}x{images.shape[3]}"
