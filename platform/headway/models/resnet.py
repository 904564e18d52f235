"""Residual nets, and the plain nets of the same depth that they are held against.

Depths 18, 34, 50, 101 and 152 have four stages of widths 64 to 512, from 50 on in bottleneck blocks (whose stride
is at the 3x3 filters, as torchvision has it). Depths 6n + 2 (20, 32, 44, 56, 110) are the paper's nets for CIFAR: three
stages of widths 16 to 64.

Source: He, Zhang, Ren and Sun 2015, "Deep residual learning for image recognition", sections 3.3, 4.1 and 4.2.

Shapes: B images, C channels, Y x X pixels, O outputs.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from headway.config.contracts import DataSpec, ModelConfig
from headway.config.errors import UserError
from headway.models._sizes import default_objective, image_shape, output_size
from headway.nn.batch_norm import BatchNorm
from headway.nn.draws import Draws

Shortcut = Literal["projection", "zero_pad", "none"]

_STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_BOTTLENECK_FROM = 50
_EXPANSION = 4
"""How many times wider a bottleneck block's output is than its 3x3 filters."""


class Config(ModelConfig):
    """Configures `ResNet`."""

    depth: PositiveInt
    """Layers with weights: 18, 34, 50, 101, 152, or 6n + 2 such as 20 and 56."""
    stem: Literal["imagenet", "cifar"] = "cifar"
    """First filters: 7x7 every 2 pixels and pooling for large images, or 3x3 at each pixel for small ones."""
    shortcut: Shortcut = "projection"
    """Where a block changes its shape: 1x1 filters, or zeros for the new channels; none is the plain net."""
    width: PositiveInt | None = None
    """Channels of the first stage; 64, or 16 for the depths 6n + 2, when absent."""

    @model_validator(mode="after")
    def _depth_is_known(self) -> Config:
        if self.depth not in _STAGES and (self.depth < 8 or self.depth % 6 != 2):
            known = ", ".join(str(depth) for depth in _STAGES)
            raise ValueError(f"depth {self.depth} is no residual net's; use {known}, or 6n + 2 such as 20")
        return self

    def build(self, spec: DataSpec) -> ResNet:
        """Returns the net for these images.

        Raises:
            UserError: the data is no image, or one smaller than the product of the strides.
        """
        channels, height, width = image_shape(spec, model=self.kind)
        stride = (4 if self.stem == "imagenet" else 1) * 2 ** (len(self.stages()) - 1)
        if min(height, width) < stride:
            raise UserError(
                f"model.stem: {self.stem} at depth {self.depth} strides over {stride} pixels, more than an image of "
                f"{height}x{width} has; use {'stem cifar' if self.stem == 'imagenet' else 'depth 20'} or larger images"
            )
        return ResNet(self, num_channels=channels, num_outputs=output_size(spec, model=self.kind))

    def default_objective(self, spec: DataSpec) -> str:
        """Returns `classify`, or `regress` for a real target."""
        return default_objective(spec)

    def stages(self) -> tuple[int, ...]:
        """Returns the number of blocks of each stage."""
        return _STAGES.get(self.depth) or ((self.depth - 2) // 6,) * 3

    def first_width(self) -> int:
        """Returns the number of channels of the first stage."""
        return self.width or (64 if self.depth in _STAGES else 16)


class ResNet(nn.Module):
    """A stem, blocks, the mean over all pixels, and a linear output.

    Args:
        config: depth and form.
        num_channels: C of the image.
        num_outputs: O.
    """

    def __init__(self, config: Config, *, num_channels: int, num_outputs: int) -> None:
        super().__init__()
        large = config.stem == "imagenet"
        channels = config.first_width()
        self.stem = Filters(num_channels, channels, 7 if large else 3, stride=2 if large else 1)
        self.pool = nn.MaxPool2d(3, 2, padding=1) if large else nn.Identity()
        bottleneck = config.depth in _STAGES and config.depth >= _BOTTLENECK_FROM
        blocks: list[nn.Module] = []
        for stage, num_blocks in enumerate(config.stages()):
            for place in range(num_blocks):
                block = Block(
                    channels,
                    config.first_width() * 2**stage,
                    stride=2 if stage > 0 and place == 0 else 1,
                    bottleneck=bottleneck,
                    shortcut=config.shortcut,
                )
                blocks.append(block)
                channels = block.num_channels
        self.blocks = nn.ModuleList(blocks)
        self.output = nn.Linear(channels, num_outputs)

    def forward(self, x_BCYX: Tensor, rng: Draws | None = None) -> Tensor:
        """Returns (B, O)."""
        x_BCYX = self.pool(F.relu(self.stem(x_BCYX)))
        for block in self.blocks:
            x_BCYX = block(x_BCYX)
        return self.output(x_BCYX.mean((2, 3)))


class Filters(nn.Module):
    """A filter bank without bias, and batch normalization."""

    def __init__(self, before: int, after: int, size: int, *, stride: int = 1) -> None:
        super().__init__()
        self.filters = nn.Conv2d(before, after, size, stride=stride, padding=size // 2, bias=False)
        self.norm = BatchNorm(after)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Returns (B, after, Y', X')."""
        return self.norm(self.filters(x_BCYX))


class Block(nn.Module):
    """Two or three filter banks, around which the input is carried and added; `shortcut: none` adds nothing.

    Args:
        before: channels of the input.
        width: filters of each bank; a bottleneck's last one has four times as many.
        stride: of the 3x3 filters that change the image's size.
        bottleneck: 1x1, 3x3 and 1x1 filters rather than two banks of 3x3.
        shortcut: how the input is brought to the output's shape.
    """

    def __init__(self, before: int, width: int, *, stride: int, bottleneck: bool, shortcut: Shortcut) -> None:
        super().__init__()
        self.num_channels = width * _EXPANSION if bottleneck else width
        if bottleneck:
            banks = [Filters(before, width, 1), Filters(width, width, 3, stride=stride)]
            banks.append(Filters(width, self.num_channels, 1))
        else:
            banks = [Filters(before, width, 3, stride=stride), Filters(width, width, 3)]
        self.banks = nn.Sequential(*banks)
        self.shortcut: nn.Module | None = None
        if shortcut != "none":
            same = stride == 1 and before == self.num_channels
            if same:
                self.shortcut = nn.Identity()
            elif shortcut == "projection":
                self.shortcut = Filters(before, self.num_channels, 1, stride=stride)
            else:
                self.shortcut = ZeroPad(self.num_channels - before, stride)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Returns (B, num_channels, Y', X')."""
        out_BCYX, last = x_BCYX, len(self.banks) - 1
        for place, bank in enumerate(self.banks):
            out_BCYX = bank(out_BCYX) if place == last else F.relu(bank(out_BCYX))
        if self.shortcut is not None:
            out_BCYX = out_BCYX + self.shortcut(x_BCYX)
        return F.relu(out_BCYX)


class ZeroPad(nn.Module):
    """Every stride-th pixel, and zeros for the channels that are new: a shortcut without weights (option A)."""

    def __init__(self, num_new: int, stride: int) -> None:
        super().__init__()
        self.num_new = num_new
        self.stride = stride

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Returns (B, C + num_new, Y', X')."""
        return F.pad(x_BCYX[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.num_new))
