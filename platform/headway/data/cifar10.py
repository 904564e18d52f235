"""CIFAR-10: 60,000 colour photographs of 32x32 pixels in ten classes, in the binary version's files.

A record is one byte of label and 3,072 of pixels: red, green and blue planes, row by row.

Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from headway.config.contracts import Data, DataConfig
from headway.config.errors import UserError
from headway.data._images import check_labels, held_out_images
from headway.data._store import DATASETS, dataset_folder

_RECORD_BYTES = 1 + 3 * 32 * 32
_CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Config(DataConfig):
    """Configures the files of one folder: 10 classes, normalised a channel by the training images' statistics."""

    folder: str | None = None
    """Folder of data_batch_1.bin to data_batch_5.bin and test_batch.bin; the data home's cifar10 when absent."""
    validation: float = Field(default=0.1, gt=0, lt=1)
    """Fraction of the training files held out to choose by; the test file is the test part."""

    def load(self) -> Data:
        """Returns the images in three parts.

        Raises:
            UserError: a missing, truncated or wrong file, by name.
        """
        folder = dataset_folder(self.folder, default="cifar10")
        *train_names, test_name = DATASETS["cifar10"].members
        batches = [_read_records(folder / name) for name in train_names]
        train = torch.cat([images for images, _ in batches]), torch.cat([label_N for _, label_N in batches])
        return held_out_images(
            train,
            _read_records(folder / test_name),
            validation=self.validation,
            seed=self.split_seed(),
            class_names=_CLASS_NAMES,
        )


def _read_records(path: Path) -> tuple[Tensor, Tensor]:
    """Returns uint8 images (N, 3, 32, 32) and int64 labels (N,)."""
    if not path.is_file():
        raise UserError(
            f"data.folder: {path} is not there; run headway data fetch cifar10, or name the folder that has it"
        )
    try:
        raw = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f"data.folder: {path} cannot be read ({error.strerror or error})") from None
    if raw.size == 0 or raw.size % _RECORD_BYTES:
        raise UserError(
            f"data.folder: {path} is truncated or no CIFAR-10 binary file: {raw.size:,} bytes are not a whole number "
            f"of records of {_RECORD_BYTES:,}; fetch it again"
        )
    records = torch.from_numpy(raw).view(-1, _RECORD_BYTES)
    label_N = records[:, 0].long()
    check_labels(label_N, path, num_classes=10, setting="data.folder")
    return records[:, 1:].reshape(-1, 3, 32, 32), label_N
