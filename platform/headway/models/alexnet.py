"""AlexNet: five filter banks and three fully connected layers, in the paper's form and in the one that is used today.

Source: Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural networks",
section 3; local response normalization is its section 3.3, dropout 4.2. `form: one_tower` is Krizhevsky 2014, "One
weird trick", as torchvision has it.

Shapes: B images, C channels, Y x X pixels, D features, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from headway.config.contracts import DataSpec, ModelConfig
from headway.config.errors import UserError
from headway.models._sizes import default_objective, image_shape, output_size
from headway.nn.draws import Draws
from headway.nn.dropout import Dropout
from headway.nn.pooling import output_pixels


@dataclass(frozen=True)
class Bank:
    """One filter bank."""

    filters: int
    size: int
    padding: int
    stride: int = 1
    groups: int = 1
    """Parts that see only their part of the channels: the paper's two GPUs."""
    pooled: bool = False
    """Whether overlapping max pooling follows: squares of 3 pixels, 2 apart."""


_BANKS = {
    "one_tower": (
        Bank(64, 11, 2, stride=4, pooled=True),
        Bank(192, 5, 2, pooled=True),
        Bank(384, 3, 1),
        Bank(256, 3, 1),
        Bank(256, 3, 1, pooled=True),
    ),
    "two_groups": (
        Bank(96, 11, 2, stride=4, pooled=True),
        Bank(256, 5, 2, groups=2, pooled=True),
        Bank(384, 3, 1),
        Bank(384, 3, 1, groups=2),
        Bank(256, 3, 1, groups=2, pooled=True),
    ),
}
_SMALL_FIRST_BANK = {"size": 5, "padding": 2, "stride": 1}
_FEATURE_PIXELS = 6
_HIDDEN = 4096


class Config(ModelConfig):
    """Configures `AlexNet`."""

    form: Literal["one_tower", "two_groups"] = "one_tower"
    """one_tower: torchvision's 61,100,840 weights for 1000 classes; two_groups: the paper's 60,965,224."""
    stem: Literal["imagenet", "cifar"] = "imagenet"
    """First filters: 11x11 every 4 pixels for images of 224, or 5x5 at each pixel for images of 32."""
    local_response_norm: bool = False
    """Whether the first two banks are normalized over five neighbouring channels, as in the paper."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Probability that an input of the first two fully connected layers is dropped while training."""
    scale: float = Field(default=1.0, gt=0)
    """Factor on the number of filters and of hidden units."""

    def build(self, spec: DataSpec) -> AlexNet:
        """Returns the net for these images.

        Raises:
            UserError: the data is no image, or nothing of it is left after the last pooling.
        """
        channels, height, width = image_shape(spec, model=self.kind)
        banks = self.banks()
        left = [_pixels_left(size, banks) for size in (height, width)]
        if min(left) < 1:
            raise UserError(
                f"model.stem: {self.stem} leaves nothing of an image of {height}x{width}; "
                "use stem cifar for images of 32 pixels, or larger images"
            )
        pixels = (_FEATURE_PIXELS, _FEATURE_PIXELS) if self.stem == "imagenet" else (left[0], left[1])
        return AlexNet(self, num_channels=channels, pixels=pixels, num_outputs=output_size(spec, model=self.kind))

    def default_objective(self, spec: DataSpec) -> str:
        """Returns `classify`, or `regress` for a real target."""
        return default_objective(spec)

    def banks(self) -> list[Bank]:
        """Returns the filter banks, scaled."""
        scaled = []
        for place, bank in enumerate(_BANKS[self.form]):
            # An even number in each group.
            changes = {"filters": max(2, 2 * round(bank.filters * self.scale / 2))}
            if place == 0 and self.stem == "cifar":
                changes |= _SMALL_FIRST_BANK
            scaled.append(Bank(**{**vars(bank), **changes}))
        return scaled

    def hidden(self) -> int:
        """Returns the width of the first two fully connected layers."""
        return max(1, round(_HIDDEN * self.scale))


class AlexNet(nn.Module):
    """Filter banks, then two hidden layers with dropout, then the output.

    Args:
        config: form and rates.
        num_channels: C of the image.
        pixels: height and width of the last feature maps, brought to this size by averaging.
        num_outputs: O.
    """

    def __init__(self, config: Config, *, num_channels: int, pixels: tuple[int, int], num_outputs: int) -> None:
        super().__init__()
        banks, hidden = config.banks(), config.hidden()
        befores = [num_channels, *(bank.filters for bank in banks)]
        self.stages = nn.ModuleList(
            Stage(before, bank, normalized=config.local_response_norm and place < 2)
            for place, (before, bank) in enumerate(zip(befores, banks, strict=False))
        )
        self.average = nn.AdaptiveAvgPool2d(pixels)
        features = banks[-1].filters * pixels[0] * pixels[1]
        self.hidden = nn.ModuleList([Hidden(features, hidden, config.dropout), Hidden(hidden, hidden, config.dropout)])
        self.output = nn.Linear(hidden, num_outputs)

    def forward(self, x_BCYX: Tensor, rng: Draws | None = None) -> Tensor:
        """Returns (B, O)."""
        for stage in self.stages:
            x_BCYX = stage(x_BCYX)
        x_BD = self.average(x_BCYX).flatten(1)
        for layer in self.hidden:
            x_BD = layer(x_BD, rng)
        return self.output(x_BD)


class Stage(nn.Module):
    """Filter bank, ReLU, and where asked for normalization and pooling."""

    def __init__(self, before: int, bank: Bank, *, normalized: bool) -> None:
        super().__init__()
        self.filters = nn.Conv2d(
            before, bank.filters, bank.size, stride=bank.stride, padding=bank.padding, groups=bank.groups
        )
        self.activation = nn.ReLU()
        # The paper's k, n, alpha and beta; torch divides its alpha by n.
        self.norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0) if normalized else nn.Identity()
        self.pool = nn.MaxPool2d(3, 2) if bank.pooled else nn.Identity()

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Returns (B, filters, Y', X')."""
        return self.pool(self.norm(self.activation(self.filters(x_BCYX))))


class Hidden(nn.Module):
    """Dropout, linear, ReLU."""

    def __init__(self, before: int, after: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(before, after)
        self.activation = nn.ReLU()

    def forward(self, x_BD: Tensor, rng: Draws | None) -> Tensor:
        """Returns (B, after)."""
        return self.activation(self.linear(self.dropout(x_BD, rng)))


def _pixels_left(size: int, banks: list[Bank]) -> int:
    for bank in banks:
        size = output_pixels(size, window=bank.size, stride=bank.stride, padding=bank.padding)
        if bank.pooled:
            size = output_pixels(size, window=3, stride=2)
        if size < 1:
            return 0
    return size
