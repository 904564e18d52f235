"""Feed-forward language model: the next token from the embeddings of the last few, the same net at every place.

Source: Bengio et al. 2003, section 2, equation 1: `y = b + W x + U tanh(d + H x)`, where x are the embeddings of
the context side by side, and W the optional direct connections. Before the start of a text stands a token that means
"nothing", with an embedding of its own.

Shapes: B sequences, T tokens, C = n - 1 tokens of context, D width of an embedding, H hidden, V vocabulary.
"""

from __future__ import annotations

from typing import Literal, overload

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from headway.config.contracts import DataSpec, ModelConfig, State
from headway.config.errors import UserError
from headway.nn.draws import Draws
from headway.nn.dropout import Dropout


class Config(ModelConfig):
    """Configures `NGram`."""

    context: PositiveInt
    """Tokens that the next one is predicted from: n - 1 of an n-gram."""
    embedding: PositiveInt
    """Width of a token's embedding."""
    hidden: PositiveInt
    """Units of the hidden layer."""
    direct: bool = False
    """Whether the embeddings are connected to the output directly too."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a hidden unit is dropped while training."""
    embedding_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a value of an embedding in a context is dropped while training."""

    def build(self, spec: DataSpec) -> NGram:
        """Returns the net for this vocabulary.

        Raises:
            UserError: the data is no text, or its rows go on from batch to batch.
        """
        if spec.input_kind != "tokens" or spec.vocab_size is None or spec.num_classes is not None:
            given = spec.input_kind if spec.vocab_size is None else "tokens with a class"
            raise UserError(
                f"model.kind: ngram predicts the next token; this data gives {given} (use data: {{kind: text}})"
            )
        if spec.carried:
            raise UserError("data.carry: true is for nets with a recurrent state, which ngram has not; set it to false")
        return NGram(self, vocab_size=spec.vocab_size)

    def default_objective(self, spec: DataSpec) -> str:
        """Returns `causal_lm`."""
        return "causal_lm"


class NGram(nn.Module):
    """Embeddings of a context side by side, a tanh layer, and logits over the vocabulary.

    Args:
        config: sizes and rates.
        vocab_size: V.
    """

    def __init__(self, config: Config, *, vocab_size: int) -> None:
        super().__init__()
        self.context = config.context
        # Row 0 is "nothing"; token v has row v + 1. So a state of zeros is a start.
        self.embedding = nn.Embedding(vocab_size + 1, config.embedding)
        self.embedding_dropout = Dropout(config.embedding_dropout)
        self.hidden = nn.Linear(config.context * config.embedding, config.hidden)
        self.dropout = Dropout(config.dropout)
        self.output = nn.Linear(config.hidden, vocab_size)
        self.direct = nn.Linear(config.context * config.embedding, vocab_size, bias=False) if config.direct else None

    @overload
    def forward(self, token_BT: Tensor, rng: Draws | None = None, state: State | None = None) -> Tensor: ...
    @overload
    def forward(
        self, token_BT: Tensor, rng: Draws | None = None, state: State | None = None, *, carry: Literal[True]
    ) -> tuple[Tensor, State]: ...
    def forward(
        self, token_BT: Tensor, rng: Draws | None = None, state: State | None = None, *, carry: bool = False
    ) -> Tensor | tuple[Tensor, State]:
        """Returns logits (B, T, V) for the token after each of (B, T).

        Args:
            token_BT: the sequences.
            rng: where masks come from.
            state: the last tokens before these sequences as `row`, (B, C), counted from 1; 0 where there was none.
            carry: whether the state after the last token is returned as well.
        """
        B, T = token_BT.shape
        before_BC = token_BT.new_zeros(B, self.context) if state is None else state["row"]
        row_BS = torch.cat([before_BC, token_BT + 1], dim=1)
        context_BTC = row_BS[:, 1:].unfold(1, self.context, 1)
        x_BTE = self.embedding_dropout(self.embedding(context_BTC).flatten(2), rng)
        logits_BTV = self.output(self.dropout(torch.tanh(self.hidden(x_BTE)), rng))
        if self.direct is not None:
            logits_BTV = logits_BTV + self.direct(x_BTE)
        return (logits_BTV, {"row": row_BS[:, T:]}) if carry else logits_BTV
