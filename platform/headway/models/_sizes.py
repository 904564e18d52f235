"""What the configs of several architectures share, and what they read off a `DataSpec`."""

from __future__ import annotations

from pydantic import PositiveInt, model_validator

from headway.config.contracts import DataSpec, ModelConfig
from headway.config.errors import UserError


class HeadsConfig(ModelConfig):
    """What nets of attention layers have in common."""

    num_layers: PositiveInt
    """Number of layers; of the encoder and of the decoder where there are both."""
    num_heads: PositiveInt
    """Number of attention heads; divides `width`."""
    width: PositiveInt
    """Size of a token's representation."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> HeadsConfig:
        if self.width % self.num_heads:
            raise ValueError(f"num_heads is {self.num_heads} and does not divide width {self.width}")
        return self


def output_size(spec: DataSpec, *, model: str, form: str = "softmax") -> int:
    """Returns the number of logits a net needs: classes, or real targets.

    Raises:
        UserError: the data has neither, or a sigmoid is to tell other than two classes apart.
    """
    if form == "sigmoid" and spec.num_classes != 2:
        raise UserError(
            f"model.form: sigmoid tells two classes apart, and this data has {spec.num_classes}; use softmax"
        )
    size = spec.num_classes or spec.target_size
    if size is None:
        raise UserError(f"model.kind: {model} predicts a class or real values, which this data has not; use a gpt")
    return size


def image_shape(spec: DataSpec, *, model: str) -> tuple[int, int, int]:
    """Returns (channels, height, width).

    Raises:
        UserError: the data is no image.
    """
    if spec.input_kind != "image":
        raise UserError(
            f"model.kind: {model} needs images; this data gives {spec.input_kind} (data.layout: image, or image_folder)"
        )
    channels, height, width = spec.input_shape
    return channels, height, width


def default_objective(spec: DataSpec) -> str:
    """Returns the objective that a net with one output a class or target has by nature."""
    return "classify" if spec.num_classes else "regress"


def check_positions(max_positions: int | None, length: int) -> int:
    """Returns the number of learned positions: as many as the data's sequences are long where none is set.

    Raises:
        UserError: the sequences are longer.
    """
    if max_positions is not None and length > max_positions:
        raise UserError(
            f"model.max_positions: {max_positions} is less than the data's sequence length {length}; "
            "raise it or lower data.sequence_length"
        )
    return max_positions or length
