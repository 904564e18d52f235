"""A tree of photographs like ImageNet's: train/<class>/*.jpg and val/<class>/*.jpg.

Shapes: N images of a batch.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from headway.config.contracts import Batch, Data, DataConfig, DataSpec
from headway.config.errors import UserError, suggestion
from headway.data._pictures import read_picture
from headway.data._splits import Scaling, shuffled_parts

_SUFFIXES = {".jpg", ".jpeg", ".png"}

Samples = list[tuple[str, int]]
"""(path, class) of each image."""


class Config(DataConfig):
    """Configures the tree: a class a folder, images decoded as they are needed.

    Without val/, validation is split off train/. Without test/, the test part is val/ (or what
    was split off): its numbers are then those that the training was chosen by.
    """

    folder: str = Field(min_length=1)
    """Folder that holds train/, and val/ and test/ where there are any."""
    size: PositiveInt = 224
    """Height and width of a sample, in pixels: the shorter side is resized to it, the centre cropped."""
    mean: Annotated[tuple[float, float, float], Field(strict=False)] = (0.485, 0.456, 0.406)
    """Subtracted from red, green and blue, which are from 0 to 1; ImageNet's when absent."""
    std: Annotated[tuple[PositiveFloat, PositiveFloat, PositiveFloat], Field(strict=False)] = (0.229, 0.224, 0.225)
    """What they are divided by afterwards; ImageNet's when absent."""
    validation: float = Field(default=0.1, gt=0, lt=1)
    """Fraction of train/ held out to choose by, where there is no val/."""
    workers: int = Field(default=2, ge=0, le=256)
    """Processes a rank that decode ahead; 0 decodes in the training process."""

    def load(self) -> Data:
        """Returns the tree in three parts; images are read when they are gathered.

        Raises:
            UserError: a folder without images, one class only, or a class that training lacks.
        """
        folder = Path(self.folder).expanduser()
        class_names = _class_names(folder / "train")
        train = _list_images(folder / "train", class_names)
        listed = {"train": train}
        for name in ("val", "test"):
            if (folder / name).is_dir():
                listed[name] = _list_images(folder / name, class_names)
        fingerprint = _fingerprint(folder, listed)
        validation = listed.get("val")
        if validation is None:
            kept, held_out = shuffled_parts(len(train), {"validation": self.validation}, self.split_seed())
            train, validation = [train[i] for i in kept.tolist()], [train[i] for i in held_out.tolist()]
        spec = DataSpec(
            input_kind="image",
            input_shape=(3, self.size, self.size),
            num_classes=len(class_names),
            class_names=tuple(class_names),
        )
        train_split, validation_split, test_split = (
            ImageFolderSplit(samples, self) for samples in (train, validation, listed.get("test", validation))
        )
        reading = {
            "image": {"channels": 3, "height": self.size, "width": self.size, "largest": 255, "pad": 0},
            "scaling": train_split.scaling.plain(),
        }
        return Data(spec, train_split, validation_split, test_split, fingerprint, workers=self.workers, reading=reading)


class ImageFolderSplit:
    """A part whose images are decoded as they are gathered.

    Args:
        samples: path and class of each image.
        config: size and statistics.
        dtype: of the pixels.
    """

    in_memory = False

    def __init__(self, samples: Samples, config: Config, *, dtype: torch.dtype = torch.float32) -> None:
        self.samples = samples
        self.config = config
        self.dtype = dtype
        # Decoded pixels are from 0 to 255.
        self.scaling = Scaling(
            *(torch.tensor(statistic).view(3, 1, 1) * 255 for statistic in (config.mean, config.std))
        )

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.samples)

    def gather(self, index_N: Tensor, *, epoch: int) -> Batch:
        """Returns the images of these indices, decoded on the CPU, the same in every epoch.

        Raises:
            UserError: an image that cannot be decoded, by name.
        """
        del epoch
        chosen = [self.samples[index] for index in index_N.tolist()]
        size = self.config.size
        pixels = np.empty((len(chosen), size, size, 3), np.uint8)
        for row, (path, _) in enumerate(chosen):
            pixels[row] = read_picture(path, channels=3, height=size, width=size, setting="data.folder")
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        target_N = torch.tensor([label for _, label in chosen], dtype=torch.int64)
        return {"input": self.scaling.apply(images, self.dtype).contiguous(), "target": target_N}

    def to(self, device: torch.device, dtype: torch.dtype) -> ImageFolderSplit:
        """Returns the split with pixels in `dtype`; nothing is in memory, so nothing moves to the device."""
        del device
        return ImageFolderSplit(self.samples, self.config, dtype=dtype)


def _class_names(train: Path) -> list[str]:
    if not train.is_dir():
        raise UserError(f"data.folder: {train} is not there; images belong in {train}/<class>/*.jpg or *.png")
    names = _class_folders(train)
    if len(names) < 2:
        found = f"one class only, {names[0]}" if names else "no class"
        raise UserError(f"data.folder: {train} has {found}; each class is a folder of its own, and two are needed")
    return names


def _class_folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _list_images(folder: Path, class_names: list[str]) -> Samples:
    """Returns the images of one part, in the order of their names."""
    label = {name: number for number, name in enumerate(class_names)}
    samples: Samples = []
    for name in _class_folders(folder):
        if name not in label:
            raise UserError(f"data.folder: {folder / name} is a class that train/ lacks{suggestion(name, class_names)}")
        files = sorted(entry for entry in (folder / name).iterdir() if entry.suffix.lower() in _SUFFIXES)
        if not files:
            raise UserError(f"data.folder: {folder / name} has no .jpg, .jpeg or .png; add some or take it away")
        samples += [(str(file), label[name]) for file in files]
    if not samples:
        raise UserError(f"data.folder: {folder} has no images; images belong in {folder}/<class>/*.jpg or *.png")
    return samples


def _fingerprint(folder: Path, listed: dict[str, Samples]) -> str:
    """Returns the SHA-256 over names and sizes: reading every photograph at start would take hours."""
    digest = hashlib.sha256()
    for samples in listed.values():
        for path, _ in samples:
            file = Path(path)
            digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\n".encode())
    return digest.hexdigest()
