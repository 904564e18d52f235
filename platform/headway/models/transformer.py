"""Transformer: an encoder reads a sentence, a decoder writes another that attends to it.

Source: Vaswani et al. 2017. One embedding, times sqrt(D), serves source, target and output (section 3.4); positions
are sinusoidal; dropout acts on the sums of embeddings and positions and on what each sub-layer adds
(section 5.4). `norm: post` is the paper's: layer norm after each sub-layer's residual sum, none at the end.
`norm: pre` (Wang et al. 2019, section 2) has it before each sub-layer and once more after each stack, and trains
without a warm-up.

Base: 6 layers, 8 heads, width 512, perceptron 2048; with 37,000 shared tokens 63,082,496 weights.
Big: 6, 16, 1024, 4096, dropout 0.3.

Padding (token 0) of the source is hidden from every query. That of the target needs no mask: it stands after all that
counts, and the decoder is causal.

Shapes: B pairs, S source tokens, T target tokens, P target tokens before them, D width, F width of the perceptron, V
vocabulary, H heads, K = D / H.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, overload

from pydantic import Field, PositiveInt
from torch import Tensor, cat, nn

from headway.config.contracts import DataSpec, State
from headway.config.errors import UserError
from headway.models._sizes import HeadsConfig
from headway.nn.attention import MultiHeadAttention
from headway.nn.beam_search import PADDING
from headway.nn.draws import Draws
from headway.nn.dropout import Dropout
from headway.nn.positions import sinusoidal_positions


class Config(HeadsConfig):
    """Configures `Transformer`."""

    hidden: PositiveInt | None = None
    """Width of the perceptron in each layer; four times `width` when absent."""
    norm: Literal["post", "pre"] = "post"
    """Whether layer norms come after each sub-layer's residual sum, as in the paper, or before each sub-layer."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Probability that a value of the embeddings or of a sub-layer's output is dropped while training."""

    def build(self, spec: DataSpec) -> Transformer:
        """Returns the net for this vocabulary.

        Raises:
            UserError: the data is no pairs of sentences.
        """
        if spec.input_kind != "pairs" or spec.vocab_size is None:
            raise UserError(
                f"model.kind: transformer reads pairs of sentences; this data gives {spec.input_kind} "
                "(use data: {kind: translation}, or a gpt)"
            )
        return Transformer(self, vocab_size=spec.vocab_size)

    def default_objective(self, spec: DataSpec) -> str:
        """Returns `seq2seq`."""
        return "seq2seq"


class Transformer(nn.Module):
    """Encoder and decoder over one vocabulary.

    Args:
        config: sizes and rates.
        vocab_size: V.
    """

    def __init__(self, config: Config, *, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        pre = config.norm == "pre"
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.source_dropout = Dropout(config.dropout)
        self.target_dropout = Dropout(config.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.encoder_norm = nn.LayerNorm(config.width) if pre else nn.Identity()
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.decoder_norm = nn.LayerNorm(config.width) if pre else nn.Identity()
        self.output = nn.Linear(config.width, vocab_size, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, source_BS: Tensor, decoder_input_BT: Tensor, rng: Draws | None = None) -> Tensor:
        """Returns logits (B, T, V) for the token after each of (B, T)."""
        return self.decode(decoder_input_BT, self.encode(source_BS, rng), source_BS, rng)

    def encode(self, source_BS: Tensor, rng: Draws | None = None) -> Tensor:
        """Returns the memory (B, S, D) of source sentences, padded at their end."""
        mask_B11S = _mask(source_BS)
        x_BSD = self.source_dropout(self._embed(source_BS), rng)
        for layer in self.encoder:
            x_BSD = layer(x_BSD, mask_B11S, rng)
        return self.encoder_norm(x_BSD)

    @overload
    def decode(
        self,
        target_BT: Tensor,
        memory_BSD: Tensor,
        source_BS: Tensor,
        rng: Draws | None = None,
        state: State | None = None,
    ) -> Tensor: ...
    @overload
    def decode(
        self,
        target_BT: Tensor,
        memory_BSD: Tensor,
        source_BS: Tensor,
        rng: Draws | None = None,
        state: State | None = None,
        *,
        carry: Literal[True],
    ) -> tuple[Tensor, State]: ...
    def decode(
        self,
        target_BT: Tensor,
        memory_BSD: Tensor,
        source_BS: Tensor,
        rng: Draws | None = None,
        state: State | None = None,
        *,
        carry: bool = False,
    ) -> Tensor | tuple[Tensor, State]:
        """Returns logits (B, T, V) for the token after each of (B, T), which starts with <bos>.

        Args:
            target_BT: what is written so far, or, with a state, what follows the P tokens before.
            memory_BSD: of the source.
            source_BS: whose padding is hidden.
            rng: where masks come from.
            state: each layer's keys and values, `<layer>.<name>`, of earlier tokens and of the memory, (B, H, P, K)
                and (B, H, S, K).
            carry: whether the state after the last token is returned as well.
        """
        state = state or {}
        num_before = state["0.key"].shape[2] if state else 0
        mask_B11S = _mask(source_BS)
        x_BTD = self.target_dropout(self._embed(target_BT, first=num_before), rng)
        after: State = {}
        for index, layer in enumerate(self.decoder):
            past = {name: state[f"{index}.{name}"] for name in DecoderLayer.remembers} if state else {}
            x_BTD, present = layer(x_BTD, memory_BSD, mask_B11S, rng, past, carry)
            after |= {f"{index}.{name}": value for name, value in present.items()}
        logits_BTV = self.output(self.decoder_norm(x_BTD))
        return (logits_BTV, after) if carry else logits_BTV

    def _embed(self, token_BT: Tensor, *, first: int = 0) -> Tensor:
        x_BTD = self.embedding(token_BT)
        position_TD = sinusoidal_positions(*x_BTD.shape[1:], first=first, device=x_BTD.device)
        return x_BTD * math.sqrt(self.config.width) + position_TD.to(x_BTD.dtype)


class EncoderLayer(nn.Module):
    """Self-attention, then a two-layer perceptron."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(config.width, config.num_heads)
        self.attention_sum = ResidualSum(config)
        self.perceptron = Perceptron(config)
        self.perceptron_sum = ResidualSum(config)

    def forward(self, x_BSD: Tensor, mask_B11S: Tensor, rng: Draws | None) -> Tensor:
        """Returns (B, S, D)."""
        x_BSD = self.attention_sum(x_BSD, lambda inner_BSD: self.attention(inner_BSD, mask=mask_B11S), rng)
        return self.perceptron_sum(x_BSD, self.perceptron, rng)


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the memory, then a two-layer perceptron."""

    remembers = ("key", "value", "memory_key", "memory_value")
    """What it carries on to the next tokens."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(config.width, config.num_heads)
        self.attention_sum = ResidualSum(config)
        self.memory_attention = MultiHeadAttention(config.width, config.num_heads)
        self.memory_sum = ResidualSum(config)
        self.perceptron = Perceptron(config)
        self.perceptron_sum = ResidualSum(config)

    def forward(
        self, x_BTD: Tensor, memory_BSD: Tensor, mask_B11S: Tensor, rng: Draws | None, past: State, carry: bool
    ) -> tuple[Tensor, State]:
        """Returns (B, T, D), and, to carry on, the keys and values of all tokens so far and of the memory."""
        present: State = {}

        def look_back(inner_BTD: Tensor) -> Tensor:
            key_BHTK, value_BHTK = self.attention.keys_values(inner_BTD)
            present["key"] = cat([past["key"], key_BHTK], 2) if past else key_BHTK
            present["value"] = cat([past["value"], value_BHTK], 2) if past else value_BHTK
            return self.attention.look_up(inner_BTD, present["key"], present["value"], causal=True)

        def look_at_source(inner_BTD: Tensor) -> Tensor:
            if past:
                key_BHSK, value_BHSK = past["memory_key"], past["memory_value"]
            else:
                key_BHSK, value_BHSK = self.memory_attention.keys_values(memory_BSD)
            present["memory_key"], present["memory_value"] = key_BHSK, value_BHSK
            return self.memory_attention.look_up(inner_BTD, key_BHSK, value_BHSK, mask=mask_B11S)

        x_BTD = self.attention_sum(x_BTD, look_back, rng)
        x_BTD = self.memory_sum(x_BTD, look_at_source, rng)
        # FSDP2 warns of outputs that are views, as keys and values are.
        return self.perceptron_sum(x_BTD, self.perceptron, rng), present if carry else {}


class Perceptron(nn.Module):
    """Two linear layers with ReLU between them, the same at every position."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        hidden = config.hidden or 4 * config.width
        self.expand = nn.Linear(config.width, hidden)
        self.activation = nn.ReLU()
        self.contract = nn.Linear(hidden, config.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Returns (B, T, D)."""
        return self.contract(self.activation(self.expand(x_BTD)))


class ResidualSum(nn.Module):
    """Adds what a sub-layer makes of its input to that input, with dropout, and normalizes after or before."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        self.norm = nn.LayerNorm(config.width)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, sub_layer: Callable[[Tensor], Tensor], rng: Draws | None) -> Tensor:
        """Returns (B, T, D)."""
        if self.pre:
            return x_BTD + self.dropout(sub_layer(self.norm(x_BTD)), rng)
        return self.norm(x_BTD + self.dropout(sub_layer(x_BTD), rng))


def _mask(source_BS: Tensor) -> Tensor:
    """Returns bool (B, 1, 1, S), False for padding."""
    return (source_BS != PADDING)[:, None, None, :]
