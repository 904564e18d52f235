"""BERT: a Transformer encoder that reads a text from both sides and names the tokens that are hidden from it.

Source: Devlin et al. 2018, section 3 and appendix A.2: token, position and segment embeddings, normalized and summed;
layers of self-attention and a two-layer perceptron with GELU, each followed by layer norm; a head that names hidden
tokens with the embedding's own weights, and one that says from the first token whether the second segment
follows the first. Where the data has classes, one linear layer on the pooled first token takes their place.

Sizes as num_layers, num_heads, width: base 12, 12, 768 (110 million weights), large 24, 16, 1024 (340 million). Smaller
ones: Turc et al. 2019 (tiny 2, 2, 128; mini 4, 4, 256; small 4, 8, 512; medium 8, 8, 512).

Dropout acts where the paper has it, but for the attention weights (see `headway.models.gpt`).

Shapes: B sequences, T tokens, D width, F width of the perceptron, V vocabulary, C classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from headway.config.contracts import DataSpec
from headway.config.errors import UserError
from headway.models._huggingface import read_bert
from headway.models._sizes import HeadsConfig, check_positions
from headway.nn.attention import MultiHeadAttention
from headway.nn.draws import Draws
from headway.nn.dropout import Dropout

PADDING = 0
_EPSILON = 1e-12


class Config(HeadsConfig):
    """Configures `BERT`."""

    hidden: PositiveInt | None = None
    """Width of the perceptron in each layer; four times `width` when absent."""
    max_positions: PositiveInt | None = None
    """Longest sequence the net can read, in tokens; the data's sequence length when absent."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Probability that a value of the embeddings, of a sub-layer's output or of the pooled token is dropped."""

    def build(self, spec: DataSpec) -> BERT:
        """Returns the net for this vocabulary: with the heads of pre-training, or with a classifier.

        Raises:
            UserError: the data has neither hidden tokens nor classes, or its sequences are longer than the positions.
        """
        if spec.vocab_size is None or spec.input_kind != "tokens":
            raise UserError(
                f"model.kind: bert reads tokens; this data gives {spec.input_kind} (use data: {{kind: masked_text}})"
            )
        if not spec.masked and spec.num_classes is None:
            raise UserError(
                "model.kind: bert names hidden tokens or classes, and this data has neither; "
                "use data: {kind: masked_text}, or a gpt"
            )
        positions = check_positions(self.max_positions, spec.input_shape[0])
        return BERT(self, vocab_size=spec.vocab_size, max_positions=positions, num_classes=spec.num_classes)

    def default_objective(self, spec: DataSpec) -> str:
        """Returns `classify` where the data has classes, else `masked_lm`."""
        return "classify" if spec.num_classes else "masked_lm"


class PreTraining(NamedTuple):
    """What BERT says of a text in pre-training."""

    token_logits: Tensor
    """(B, T, V), or (N, V) of the N places that were asked for."""
    next_logits: Tensor
    """(B, 2): whether the second segment follows the first (0) or comes from elsewhere (1)."""


class BERT(nn.Module):
    """Embeddings, encoder layers, and the heads of pre-training or a classifier.

    Args:
        config: sizes and rates.
        vocab_size: V.
        max_positions: number of learned positions.
        num_classes: C; None for the heads of pre-training.
    """

    def __init__(self, config: Config, *, vocab_size: int, max_positions: int, num_classes: int | None) -> None:
        super().__init__()
        self.config = config
        self.max_positions = max_positions
        width = config.width
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.position_embedding = nn.Embedding(max_positions, width)
        self.segment_embedding = nn.Embedding(2, width)
        self.embedding_norm = nn.LayerNorm(width, eps=_EPSILON)
        self.embedding_dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.pooler = nn.Linear(width, width)
        self.pooled_dropout = Dropout(config.dropout)
        self.classifier = None if num_classes is None else nn.Linear(width, num_classes)
        self.token_head = TokenHead(self.token_embedding) if num_classes is None else None
        self.next_head = nn.Linear(width, 2) if num_classes is None else None

    def forward(
        self,
        token_BT: Tensor,
        rng: Draws | None = None,
        segment_BT: Tensor | None = None,
        *,
        asked_BT: Tensor | None = None,
    ) -> Tensor | PreTraining:
        """Returns what is said of hidden tokens and of the next segment, or logits of classes (B, C).

        Args:
            token_BT: the sequences; token 0 is padding and nobody looks at it.
            rng: where masks come from.
            segment_BT: 0 or 1 for each token; all 0 when absent.
            asked_BT: bool; the tokens to give logits of, in the order of rows. All when absent.

        Raises:
            UserError: more tokens than positions.
        """
        x_BTD = self.encode(token_BT, rng, segment_BT)
        pooled_BD = torch.tanh(self.pooler(x_BTD[:, 0]))
        if self.classifier is not None:
            return self.classifier(self.pooled_dropout(pooled_BD, rng))
        assert self.token_head is not None
        assert self.next_head is not None
        asked = x_BTD if asked_BT is None else x_BTD[asked_BT]
        return PreTraining(self.token_head(asked), self.next_head(pooled_BD))

    def encode(self, token_BT: Tensor, rng: Draws | None = None, segment_BT: Tensor | None = None) -> Tensor:
        """Returns the last layer's representation of each token, (B, T, D)."""
        num_tokens = token_BT.shape[1]
        if num_tokens > self.max_positions:
            raise UserError(
                f"model.max_positions: {self.max_positions} is less than the {num_tokens} tokens to read; give it fewer"
            )
        position_T = torch.arange(num_tokens, device=token_BT.device)
        segment_BT = torch.zeros_like(token_BT) if segment_BT is None else segment_BT
        x_BTD = (
            self.token_embedding(token_BT) + self.position_embedding(position_T) + self.segment_embedding(segment_BT)
        )
        x_BTD = self.embedding_dropout(self.embedding_norm(x_BTD), rng)
        mask_B11T = (token_BT != PADDING)[:, None, None, :]
        for layer in self.layers:
            x_BTD = layer(x_BTD, mask_B11T, rng)
        return x_BTD

    def from_huggingface(self, folder: Path) -> dict[str, Tensor]:
        """Returns the weights of a published checkpoint, by this net's names; a head it lacks is left out.

        Raises:
            UserError: they do not fit, with the setting to change.
        """
        return read_bert(self, folder)


class Layer(nn.Module):
    """Self-attention, then a two-layer perceptron; layer norm after each residual sum."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        hidden = config.hidden or 4 * config.width
        self.attention = MultiHeadAttention(config.width, config.num_heads)
        self.attention_dropout = Dropout(config.dropout)
        self.attention_norm = nn.LayerNorm(config.width, eps=_EPSILON)
        self.expand = nn.Linear(config.width, hidden)
        self.activation = nn.GELU()
        self.contract = nn.Linear(hidden, config.width)
        self.mlp_dropout = Dropout(config.dropout)
        self.mlp_norm = nn.LayerNorm(config.width, eps=_EPSILON)

    def forward(self, x_BTD: Tensor, mask_B11T: Tensor, rng: Draws | None) -> Tensor:
        """Returns (B, T, D)."""
        x_BTD = self.attention_norm(x_BTD + self.attention_dropout(self.attention(x_BTD, mask=mask_B11T), rng))
        hidden_BTF = self.activation(self.expand(x_BTD))
        return self.mlp_norm(x_BTD + self.mlp_dropout(self.contract(hidden_BTF), rng))


class TokenHead(nn.Module):
    """Logits over the vocabulary: a dense layer with GELU and norm, then the embedding's weights and a bias.

    Args:
        embedding: whose weights the output shares.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        vocab_size, width = embedding.weight.shape
        self.dense = nn.Linear(width, width)
        self.activation = nn.GELU()
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.output = nn.Linear(width, vocab_size)
        self.output.weight = embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        """Returns (..., V) for (..., D)."""
        return self.output(self.norm(self.activation(self.dense(x))))
