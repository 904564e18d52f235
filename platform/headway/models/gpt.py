"""GPT: a decoder-only Transformer that predicts the next token, normalized before each sub-layer.

Source: Radford et al. 2019 (GPT-2), section 2.3: learned positions, layer norm before each
sub-layer and one after the last block, output weights tied to the embedding (Press and Wolf 2017),
residual projections that start smaller by sqrt(number of residual layers).

Dropout acts on the embeddings and on what each sub-layer adds to the residual stream. The
attention weights themselves are not dropped: the fused kernel draws its masks from a global
generator, which no recipe of headway depends on.

Shapes: B sequences, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from headway.config.contracts import DataSpec, ModelConfig
from headway.config.errors import UserError
from headway.nn.attention import CausalSelfAttention
from headway.nn.draws import Draws
from headway.nn.dropout import Dropout


class Config(ModelConfig):
    """Configures `GPT`."""

    num_layers: PositiveInt
    """Number of blocks."""
    num_heads: PositiveInt
    """Number of attention heads; divides `width`."""
    width: PositiveInt
    """Size of the residual stream."""
    max_positions: PositiveInt | None = None
    """Longest sequence the net can read, in tokens; the data's sequence length when absent."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a value of the embeddings or of a sub-layer's output is dropped while training."""
    bias: bool = True
    """Whether linear layers and norms have biases, as GPT-2's do."""
    tied: bool = True
    """Whether the output layer shares the embedding's weights."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Config:
        if self.width % self.num_heads:
            raise ValueError(f"num_heads is {self.num_heads} and does not divide width {self.width}")
        return self

    def build(self, spec: DataSpec) -> GPT:
        """Returns the net for this vocabulary.

        Raises:
            UserError: the data is no text, or its sequences are longer than the positions.
        """
        if spec.vocab_size is None:
            raise UserError(
                f"model.kind: gpt reads tokens; this data gives {spec.input_kind} (use data: {{kind: text}})"
            )
        (length,) = spec.input_shape
        positions = self.max_positions or length
        if length > positions:
            raise UserError(
                f"model.max_positions: {positions} is less than the data's sequence length {length}; "
                "raise it or lower data.sequence_length"
            )
        return GPT(self, vocab_size=spec.vocab_size, max_positions=positions)

    def default_objective(self, spec: DataSpec) -> str:
        """Returns `causal_lm`."""
        return "causal_lm"


class GPT(nn.Module):
    """Token and position embeddings, blocks, a final norm, and logits over the vocabulary.

    Args:
        config: sizes and rates.
        vocab_size: V.
        max_positions: number of learned positions.
    """

    def __init__(self, config: Config, *, vocab_size: int, max_positions: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, config.width)
        self.position_embedding = nn.Embedding(max_positions, config.width)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width, bias=config.bias)
        self.output = nn.Linear(config.width, vocab_size, bias=False)
        if config.tied:
            self.output.weight = self.token_embedding.weight

    def forward(self, token_BT: Tensor, rng: Draws | None = None) -> Tensor:
        """Returns logits (B, T, V) for the token after each of (B, T)."""
        position_T = torch.arange(token_BT.shape[1], device=token_BT.device)
        x_BTD = self.dropout(self.token_embedding(token_BT) + self.position_embedding(position_T), rng)
        for block in self.blocks:
            x_BTD = block(x_BTD, rng)
        return self.output(self.norm(x_BTD))


class Block(nn.Module):
    """Attention, then a two-layer perceptron, each added to the residual stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, bias=config.bias)
        self.attention = CausalSelfAttention(config.width, config.num_heads, bias=config.bias)
        self.attention_dropout = Dropout(config.dropout)
        self.mlp_norm = nn.LayerNorm(config.width, bias=config.bias)
        self.expand = nn.Linear(config.width, 4 * config.width, bias=config.bias)
        self.activation = nn.GELU(approximate="tanh")
        self.contract = nn.Linear(4 * config.width, config.width, bias=config.bias)
        self.mlp_dropout = Dropout(config.dropout)
        for projection in (self.attention.output, self.contract):
            # Read by the initialization: every scheme's draw is multiplied by it.
            projection.init_scale = 1.0 / math.sqrt(2 * config.num_layers)  # type: ignore[assignment]

    def forward(self, x_BTD: Tensor, rng: Draws | None) -> Tensor:
        """Returns (B, T, D)."""
        x_BTD = x_BTD + self.attention_dropout(self.attention(self.attention_norm(x_BTD)), rng)
        hidden = self.activation(self.expand(self.mlp_norm(x_BTD)))
        return x_BTD + self.mlp_dropout(self.contract(hidden), rng)
