"""GPT: a decoder-only Transformer that predicts the next token.

Source: Radford et al. 2018 (GPT-1, `norm: post`): layer norm after each sub-layer's residual sum, none at the end.
Radford et al. 2019 (GPT-2, `norm: pre`), section 2.3: layer norm before each sub-layer and one after the
last block, residual projections that start smaller by sqrt(number of residual layers). Both have learned
positions, the tanh form of GELU, and output weights tied to the embedding (Press and Wolf 2017).

Published sizes as num_layers, num_heads, width: GPT-1 12, 12, 768; GPT-2 12, 12, 768 (124 million weights),
24, 16, 1024 (355), 36, 20, 1280 (774) and 48, 25, 1600 (1,558).

Dropout acts on the embeddings and on what each sub-layer adds to the residual stream. The
attention weights themselves are not dropped: the fused kernel draws its masks from a global
generator, which no recipe of headway depends on.

Shapes: B sequences, T tokens, P tokens before them, D width, V vocabulary, H heads, K = D / H.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, overload

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from headway.config.contracts import DataSpec, State
from headway.config.errors import UserError
from headway.models._huggingface import read_gpt
from headway.models._sizes import HeadsConfig, check_positions
from headway.nn.attention import CausalSelfAttention
from headway.nn.draws import Draws
from headway.nn.dropout import Dropout


class Config(HeadsConfig):
    """Configures `GPT`."""

    norm: Literal["pre", "post"] = "pre"
    """Whether layer norms come before each sub-layer, as in GPT-2, or after its residual sum, as in GPT-1."""
    max_positions: PositiveInt | None = None
    """Longest sequence the net can read, in tokens; the data's sequence length when absent."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a value of the embeddings or of a sub-layer's output is dropped while training."""
    bias: bool = True
    """Whether linear layers and norms have biases, as GPT-2's do."""
    tied: bool = True
    """Whether the output layer shares the embedding's weights."""

    def build(self, spec: DataSpec) -> GPT:
        """Returns the net for this vocabulary.

        Raises:
            UserError: the data is no text to go on with, or its sequences are longer than the positions.
        """
        if spec.vocab_size is None or spec.input_kind != "tokens":
            raise UserError(
                f"model.kind: gpt reads tokens; this data gives {spec.input_kind} (use data: {{kind: text}})"
            )
        if spec.masked or spec.num_classes:
            target = "hidden tokens" if spec.masked else "classes"
            raise UserError(f"model.kind: gpt predicts the next token and this data asks for {target}; use bert")
        if spec.carried:
            raise UserError(
                "data.carry: is true, and a gpt has positions for one sample only; set it to false or use an rnn"
            )
        (length,) = spec.input_shape
        positions = check_positions(self.max_positions, length)
        return GPT(self, vocab_size=spec.vocab_size, max_positions=positions)

    def default_objective(self, spec: DataSpec) -> str:
        """Returns `causal_lm`."""
        return "causal_lm"


class GPT(nn.Module):
    """Token and position embeddings, blocks, a final norm where norms come first, and logits over the vocabulary.

    Args:
        config: sizes and rates.
        vocab_size: V.
        max_positions: number of learned positions.
    """

    def __init__(self, config: Config, *, vocab_size: int, max_positions: int) -> None:
        super().__init__()
        self.config = config
        self.max_positions = max_positions
        self.token_embedding = nn.Embedding(vocab_size, config.width)
        self.position_embedding = nn.Embedding(max_positions, config.width)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width, bias=config.bias) if config.norm == "pre" else nn.Identity()
        self.output = nn.Linear(config.width, vocab_size, bias=False)
        if config.tied:
            self.output.weight = self.token_embedding.weight

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
            token_BT: the sequences; the first token stands at position P.
            rng: where masks come from.
            state: what each block knows of the P tokens before: `<block>.key` and `<block>.value`, (B, H, P, K).
            carry: whether the state after the last token is returned as well.

        Raises:
            UserError: more tokens than positions.
        """
        state = state or {}
        num_before = state["0.key"].shape[2] if state else 0
        end = num_before + token_BT.shape[1]
        if end > self.max_positions:
            raise UserError(
                f"model.max_positions: {self.max_positions} is less than the {end} tokens to read; give it fewer"
            )
        position_T = torch.arange(num_before, end, device=token_BT.device)
        x_BTD = self.dropout(self.token_embedding(token_BT) + self.position_embedding(position_T), rng)
        after: State = {}
        for index, block in enumerate(self.blocks):
            past = (state[f"{index}.key"], state[f"{index}.value"]) if state else None
            x_BTD, present = block(x_BTD, rng, past)
            if carry:
                after[f"{index}.key"], after[f"{index}.value"] = present
        logits_BTV = self.output(self.norm(x_BTD))
        return (logits_BTV, after) if carry else logits_BTV

    def from_huggingface(self, folder: Path) -> dict[str, Tensor]:
        """Returns the weights of a published checkpoint, by this net's names.

        Raises:
            UserError: they do not fit, with the setting to change.
        """
        return read_gpt(self, folder)


class Block(nn.Module):
    """Attention, then a two-layer perceptron, each added to the residual stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        self.attention_norm = nn.LayerNorm(config.width, bias=config.bias)
        self.attention = CausalSelfAttention(config.width, config.num_heads, bias=config.bias)
        self.attention_dropout = Dropout(config.dropout)
        self.mlp_norm = nn.LayerNorm(config.width, bias=config.bias)
        self.expand = nn.Linear(config.width, 4 * config.width, bias=config.bias)
        self.activation = nn.GELU(approximate="tanh")
        self.contract = nn.Linear(4 * config.width, config.width, bias=config.bias)
        self.mlp_dropout = Dropout(config.dropout)
        for projection in (self.attention.output, self.contract) if self.pre else ():
            # Read by the initialization: every scheme's draw is multiplied by it.
            projection.init_scale = 1.0 / math.sqrt(2 * config.num_layers)  # type: ignore[assignment]

    def forward(
        self, x_BTD: Tensor, rng: Draws | None, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Returns (B, T, D), and keys and values (B, H, P + T, K) of all tokens so far."""
        inner_BTD = self.attention_norm(x_BTD) if self.pre else x_BTD
        mixed_BTD, key_BHSK, value_BHSK = self.attention.extend(inner_BTD, *(past or (None, None)))
        x_BTD = x_BTD + self.attention_dropout(mixed_BTD, rng)
        x_BTD = x_BTD if self.pre else self.attention_norm(x_BTD)
        inner_BTD = self.mlp_norm(x_BTD) if self.pre else x_BTD
        x_BTD = x_BTD + self.mlp_dropout(self.contract(self.activation(self.expand(inner_BTD))), rng)
        return x_BTD if self.pre else self.mlp_norm(x_BTD), (key_BHSK, value_BHSK)
