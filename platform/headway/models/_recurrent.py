"""The net around recurrent layers, and the settings that all of its kinds have.

Over text it is a language model (Mikolov et al. 2010): embedding, layers, logits for the next token at every step.
Over a sequence with one target, a class or real values, it answers from the last step.

Dropout acts on the embeddings and on what each layer hands on, to the next one or to the output, but not on
what it hands to its own next step (Zaremba, Sutskever and Vinyals 2014); `recurrent_dropout` does that, with one
mask a sequence (Gal and Ghahramani 2016).

Shapes: B sequences, T steps, I inputs of a step, D width of an embedding, H hidden, O outputs, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, cast, overload

from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from headway.config.contracts import DataSpec, ModelConfig, State
from headway.config.errors import UserError
from headway.models._sizes import default_objective, output_size
from headway.nn.draws import Draws
from headway.nn.dropout import Dropout
from headway.nn.recurrent import Recurrent, RecurrentInit, RecurrentLayer
from headway.nn.variational_dropout import VariationalDropout


class RecurrentConfig(ModelConfig):
    """Configures `RecurrentNet`."""

    hidden: PositiveInt
    """Units of each layer."""
    num_layers: PositiveInt = 1
    """Number of recurrent layers."""
    embedding: PositiveInt | None = None
    """Width of the token embeddings; `hidden` when absent."""
    tied: bool = False
    """Whether the output layer shares the embedding's weights."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a value that a layer hands to the next, or to the output, is dropped while training."""
    embedding_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a value of an embedding is dropped while training."""
    recurrent_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a unit's way to the next step is dropped, for a whole sequence, while training."""
    variational: bool = False
    """Whether `dropout` and `embedding_dropout` have one mask a sequence too, rather than one a step."""
    recurrent_init: RecurrentInit = "scheme"
    """orthogonal: each gate's recurrent matrix starts as a rotation; scheme: as the recipe's init draws the others."""
    fused: bool = True
    """Whether the library's kernel runs a layer where it can; false goes step by step through the equations."""

    @model_validator(mode="after")
    def _tied_widths_agree(self) -> RecurrentConfig:
        if self.tied and self.embedding not in (None, self.hidden):
            raise ValueError(
                f"tied is true, but embedding {self.embedding} and hidden {self.hidden} differ; "
                "make them equal or tied false"
            )
        return self

    @abstractmethod
    def build_layer(self, num_inputs: int) -> RecurrentLayer:
        """Returns one layer for inputs of this width."""
        raise NotImplementedError

    def layer_settings(self) -> dict[str, Any]:
        """Returns what every kind of layer is told."""
        return {
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
            "variational": self.variational,
            "recurrent_init": self.recurrent_init,
            "fused": self.fused,
        }

    def build(self, spec: DataSpec) -> RecurrentNet:
        """Returns the net for this data.

        Raises:
            UserError: the data is no sequence, or the net has a setting that it has no use for.
        """
        if spec.input_kind not in ("tokens", "sequence"):
            raise UserError(
                f"model.kind: {self.kind} reads tokens or sequences; this data gives {spec.input_kind} "
                "(use data: {kind: text} or {kind: adding})"
            )
        language = _is_language(spec)
        if self.tied and not language:
            raise UserError("model.tied: true is for predicting the tokens that are read; this data has another target")
        if spec.input_kind == "sequence" and (self.embedding is not None or self.embedding_dropout > 0):
            raise UserError(
                "model: embedding and embedding_dropout are for tokens, and this data gives real values; leave them out"
            )
        return RecurrentNet(
            self,
            vocab_size=spec.vocab_size if spec.input_kind == "tokens" else None,
            num_inputs=spec.input_shape[-1],
            num_outputs=cast(int, spec.vocab_size) if language else output_size(spec, model=self.kind),
            every_step=language,
        )

    def default_objective(self, spec: DataSpec) -> str:
        """Returns `causal_lm` for text, `classify` or `regress` for one target a sequence."""
        return "causal_lm" if _is_language(spec) else default_objective(spec)


class RecurrentNet(nn.Module):
    """Embedding where the input is tokens, recurrent layers, and a linear output of every step or of the last.

    Args:
        config: sizes, rates and the kind of layer.
        vocab_size: V, where the input is tokens.
        num_inputs: I, where it is not.
        num_outputs: O; V for a language model.
        every_step: whether each step has an output, or only the last.
    """

    def __init__(
        self, config: RecurrentConfig, *, vocab_size: int | None, num_inputs: int, num_outputs: int, every_step: bool
    ) -> None:
        super().__init__()
        self.every_step = every_step
        self.embedding: nn.Embedding | None = None
        width = num_inputs
        if vocab_size is not None:
            width = config.embedding or config.hidden
            self.embedding = nn.Embedding(vocab_size, width)
        rate = config.embedding_dropout
        self.embedding_dropout = VariationalDropout(rate) if config.variational else Dropout(rate)
        widths = [width] + [config.hidden] * (config.num_layers - 1)
        self.recurrent = Recurrent(config.build_layer(width) for width in widths)
        self.output = nn.Linear(config.hidden, num_outputs)
        if config.tied:
            assert self.embedding is not None
            self.output.weight = self.embedding.weight

    @overload
    def forward(self, input: Tensor, rng: Draws | None = None, state: State | None = None) -> Tensor: ...
    @overload
    def forward(
        self, input: Tensor, rng: Draws | None = None, state: State | None = None, *, carry: Literal[True]
    ) -> tuple[Tensor, State]: ...
    def forward(
        self, input: Tensor, rng: Draws | None = None, state: State | None = None, *, carry: bool = False
    ) -> Tensor | tuple[Tensor, State]:
        """Returns (B, T, O), or (B, O) of the last step, for tokens (B, T) or real values (B, T, I).

        Args:
            input: the sequences.
            rng: where masks come from.
            state: where the stretch before these sequences ended, each tensor (B, layers, H); None or zeros at a start.
            carry: whether the state after the last step is returned as well.
        """
        x_BTD = input if self.embedding is None else self.embedding_dropout(self.embedding(input), rng)
        x_BTH, state = self.recurrent(x_BTD, rng, state)
        out = self.output(x_BTH if self.every_step else x_BTH[:, -1])
        return (out, state) if carry else out


def _is_language(spec: DataSpec) -> bool:
    """Whether the target is a token at every step."""
    return spec.input_kind == "tokens" and spec.num_classes is None and spec.target_size is None
