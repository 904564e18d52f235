"""Parts of a data set whose samples are independent: how they are drawn, standardised and gathered.

Shapes: N samples of a batch, F features, C channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from headway.config.contracts import Batch, Data, DataConfig, DataSpec
from headway.config.errors import UserError
from headway.config.keys import derive


class SplitFractions(DataConfig):
    """A data section whose validation and test parts are drawn from one pool of independent samples."""

    validation: float = Field(default=0.15, gt=0, lt=1)
    """Fraction of the samples held out to choose by."""
    test: float = Field(default=0.15, gt=0, lt=1)
    """Fraction of the samples held out to report."""

    @model_validator(mode="after")
    def _leaves_training_samples(self) -> SplitFractions:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} and test {self.test} leave nothing to train on; "
                "their sum must be less than 1"
            )
        return self

    def parts(self, num_samples: int) -> list[Tensor]:
        """Returns the indices of the training, validation and test samples."""
        return shuffled_parts(num_samples, {"validation": self.validation, "test": self.test}, self.split_seed())


class Scaling:
    """`(value - mean) / std` with statistics that broadcast over one sample.

    Args:
        mean: in the units of the stored values.
        std: likewise; a zero (a constant column) counts as one, which leaves that column zero.
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean = mean
        self.std = torch.where(std > 0, std, torch.ones_like(std))

    def apply(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        """Returns a new tensor of this dtype; the arithmetic is done in float32 at least."""
        exact = torch.promote_types(dtype, torch.float32)
        mean, std = (statistic.to(value.device, exact) for statistic in (self.mean, self.std))
        return value.to(exact).sub(mean).div_(std).to(dtype)

    def to(self, device: torch.device) -> Scaling:
        """Returns the scaling with its statistics on a device."""
        return Scaling(self.mean.to(device), self.std.to(device))

    def plain(self) -> dict[str, Any]:
        """Returns `{"mean": ..., "std": ...}` as nested lists, for `Data.reading`."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}


class TensorSplit:
    """A part that is held as tensors by name, each with the sample as its first axis.

    Args:
        tensors: `input` and `target`; images as uint8 take a quarter of the memory.
        scaling: applied to `input` as it is gathered, for data that is stored unscaled.
        dtype: of real values.
    """

    in_memory = True

    def __init__(
        self, tensors: Mapping[str, Tensor], *, scaling: Scaling | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        self.tensors = dict(tensors)
        self.scaling = scaling
        self.dtype = dtype
        assert len({len(tensor) for tensor in self.tensors.values()}) == 1, "one row a sample in every tensor"

    def __len__(self) -> int:
        """Returns the number of samples."""
        return len(next(iter(self.tensors.values())))

    def gather(self, index_N: Tensor, *, epoch: int) -> Batch:
        """Returns the samples of these indices, the same in every epoch."""
        del epoch
        batch = {name: tensor.index_select(0, index_N.to(tensor.device)) for name, tensor in self.tensors.items()}
        if self.scaling is not None:
            batch["input"] = self.scaling.apply(batch["input"], self.dtype)
        return batch

    def to(self, device: torch.device, dtype: torch.dtype) -> TensorSplit:
        """Returns the split on a device, its real values in `dtype`; integers stay what they are."""
        moved = {
            name: tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)
            for name, tensor in self.tensors.items()
        }
        return TensorSplit(moved, scaling=self.scaling.to(device) if self.scaling else None, dtype=dtype)


def shuffled_parts(num_samples: int, fractions: Mapping[str, float], seed: int) -> list[Tensor]:
    """Returns disjoint index tensors that cover all samples: what is left for training, then each held-out part.

    Args:
        num_samples: in the pool.
        fractions: setting -> fraction of the pool, such as `{"validation": 0.1, "test": 0.1}`.
        seed: the same seed draws the same parts.

    Raises:
        UserError: a part without a sample.
    """
    counts = {name: round(fraction * num_samples) for name, fraction in fractions.items()}
    for name, count in counts.items():
        if count == 0:
            raise UserError(f"data.{name}: {fractions[name]} of {num_samples} samples is none; make it larger")
    num_train = num_samples - sum(counts.values())
    if num_train < 1:
        settings = " and ".join(f"data.{name} {fraction}" for name, fraction in fractions.items())
        raise UserError(f"{settings}: leave none of {num_samples} samples to train on; make them smaller")
    generator = torch.Generator().manual_seed(derive(seed, "split"))
    order = torch.randperm(num_samples, generator=generator)
    return list(torch.split(order, [num_train, *counts.values()]))


def standardise(columns: NDArray[Any], train: Tensor) -> Tensor:
    """Returns float32 columns with mean 0 and deviation 1 over the training rows; constant ones are 0."""
    exact = torch.from_numpy(np.array(columns, dtype=np.float64))
    return column_scaling(columns, train).apply(exact, torch.float64).float()


def column_scaling(columns: NDArray[Any], train: Tensor) -> Scaling:
    """Returns the scaling by mean and deviation of each column over the training rows."""
    chosen = torch.from_numpy(np.array(columns, dtype=np.float64))[train]
    return Scaling(chosen.mean(0), chosen.std(0, correction=0))


def pixel_scaling(images: Tensor) -> Scaling:
    """Returns the scaling by mean and deviation of each channel over uint8 images (N, C, height, width)."""
    num_pixels = images.numel() // images.shape[1]
    sums = torch.zeros(2, images.shape[1], dtype=torch.float64)
    for chunk in torch.split(images, 2048):
        # Whole numbers below 2**53: the sums are exact, in whatever order they are added.
        values = chunk.double()
        sums += torch.stack([values.sum((0, 2, 3)), values.square_().sum((0, 2, 3))])
    mean = sums[0] / num_pixels
    std = (sums[1] / num_pixels - mean.square()).clamp(min=0).sqrt()
    return Scaling(mean.view(-1, 1, 1), std.view(-1, 1, 1))


def pooled(
    spec: DataSpec,
    parts: Sequence[Tensor],
    tensors: Mapping[str, Tensor],
    *,
    fingerprint: str,
    reading: Mapping[str, Any] | None = None,
    **scaled: Any,
) -> Data:
    """Returns the data whose three parts are rows of the same tensors; `scaled` goes to `TensorSplit`."""
    train, validation, test = (
        TensorSplit({name: tensor[part] for name, tensor in tensors.items()}, **scaled) for part in parts
    )
    return Data(spec, train, validation, test, fingerprint, reading=dict(reading or {}))


def fingerprint_arrays(*arrays: NDArray[Any] | Tensor) -> str:
    """Returns the SHA-256 over the type, the shape and the bytes of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        plain = np.ascontiguousarray(array.numpy() if isinstance(array, Tensor) else array)
        digest.update(f"{plain.dtype.str}{plain.shape}".encode())
        digest.update(plain.data)
    return digest.hexdigest()


def fingerprint_file(path: Path) -> str:
    """Returns the SHA-256 over a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
