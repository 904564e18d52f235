"""A convolutional net of two feature stages: filter bank, non-linearity, pooling, twice, then a classifier.

Source: LeCun, Kavukcuoglu and Farabet 2010, "Convolutional networks and applications in vision",
section I; a stage is their F-R-P.

Shapes: B images, C channels, Y x X pixels, O outputs.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from headway.config.contracts import DataSpec, ModelConfig
from headway.config.errors import UserError
from headway.models._sizes import default_objective, output_size
from headway.nn.activation import Activation, build_activation
from headway.nn.batch_norm import BatchNorm
from headway.nn.draws import Draws
from headway.nn.dropout import Dropout
from headway.nn.pooling import Pooling, build_pooling, output_pixels


class Config(ModelConfig):
    """Configures `ConvNet`."""

    filters: Annotated[tuple[PositiveInt, PositiveInt], Field(strict=False)] = (16, 32)
    """Number of filters of the first and of the second stage."""
    filter_size: PositiveInt = 3
    """Height and width of a filter, in pixels."""
    stride: PositiveInt = 1
    """Pixels between places of a filter."""
    padding: int = Field(default=1, ge=0)
    """Zeros around the image before each filter bank, in pixels."""
    pooling: Pooling = "max"
    """What is kept of a pooled square: the largest value, the mean, or the root of the sum of squares."""
    pool_size: PositiveInt = 2
    """Height and width of the pooled square, in pixels."""
    pool_stride: PositiveInt | None = None
    """Pixels between pooled squares; `pool_size` when absent."""
    batch_norm: bool = False
    """Whether each filter bank is followed by batch normalization, over the rows of all ranks."""
    hidden: PositiveInt | None = None
    """Width of a hidden layer before the classifier; none when absent."""
    activation: Activation = "relu"
    """Non-linearity after each filter bank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a feature is dropped before the classifier while training."""

    def build(self, spec: DataSpec) -> ConvNet:
        """Returns the net for these images.

        Raises:
            UserError: the data is no image, or too small for two stages.
        """
        if spec.input_kind != "image":
            raise UserError(f"model.kind: convnet needs images; this data gives {spec.input_kind} (data.layout: image)")
        channels, height, width = spec.input_shape
        sizes = [self._size_after_stages(size) for size in (height, width)]
        if min(sizes) < 1:
            raise UserError(
                f"model.pool_size: an image of {height}x{width} has nothing left after two stages with "
                f"filter_size {self.filter_size}, stride {self.stride}, padding {self.padding}, "
                f"pool_size {self.pool_size}; make them smaller"
            )
        return ConvNet(
            self,
            num_channels=channels,
            num_features=self.filters[1] * sizes[0] * sizes[1],
            num_outputs=output_size(spec, model=self.kind),
        )

    def default_objective(self, spec: DataSpec) -> str:
        """Returns `classify`, or `regress` for a real target."""
        return default_objective(spec)

    def _size_after_stages(self, size: int) -> int:
        for _ in self.filters:
            size = output_pixels(size, window=self.filter_size, stride=self.stride, padding=self.padding)
            size = output_pixels(size, window=self.pool_size, stride=self.pool_stride or self.pool_size)
            if size < 1:
                return 0
        return size


class ConvNet(nn.Module):
    """Two stages of features and a classifier.

    Args:
        config: sizes and rates.
        num_channels: C of the image.
        num_features: values that are left of an image after both stages.
        num_outputs: O.
    """

    def __init__(self, config: Config, *, num_channels: int, num_features: int, num_outputs: int) -> None:
        super().__init__()
        first, second = config.filters
        self.stages = nn.ModuleList([Stage(num_channels, first, config), Stage(first, second, config)])
        self.dropout = Dropout(config.dropout)
        self.hidden: nn.Module | None = None
        if config.hidden is not None:
            self.hidden = nn.Sequential(nn.Linear(num_features, config.hidden), build_activation(config.activation))
        self.output = nn.Linear(config.hidden or num_features, num_outputs)

    def forward(self, x_BCYX: Tensor, rng: Draws | None = None) -> Tensor:
        """Returns (B, O)."""
        for stage in self.stages:
            x_BCYX = stage(x_BCYX)
        features = x_BCYX.flatten(1)
        if self.hidden is not None:
            features = self.hidden(features)
        return self.output(self.dropout(features, rng))


class Stage(nn.Module):
    """Filter bank, batch normalization where asked for, non-linearity, pooling."""

    def __init__(self, before: int, after: int, config: Config) -> None:
        super().__init__()
        self.filters = nn.Conv2d(before, after, config.filter_size, stride=config.stride, padding=config.padding)
        self.norm = BatchNorm(after) if config.batch_norm else nn.Identity()
        self.activation = build_activation(config.activation)
        self.pool = build_pooling(config.pooling, config.pool_size, config.pool_stride or config.pool_size)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Returns (B, after, Y', X')."""
        # Pooling first is the same for a monotonic activation only; keep the paper's order.
        return self.pool(self.activation(self.norm(self.filters(x_BCYX))))
