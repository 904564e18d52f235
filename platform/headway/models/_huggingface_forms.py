"""How GPT and BERT are written down by transformers: the sizes in config.json, and the name of each weight.

One form serves reading and writing. Transformers' GPTs store a linear layer as (in, out).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from headway.models.bert import BERT
    from headway.models.gpt import GPT


class Weight(NamedTuple):
    """One weight here and there."""

    ours: str
    theirs: str
    """Without the prefix."""
    transposed: bool = False
    required: bool = True
    """False: where the folder does not have it, or has another shape, the recipe's init draws it."""


@dataclass(frozen=True)
class Form:
    """How one net is written down by transformers."""

    prefix: str
    """Of the names of the body's weights in a model with a head; a bare body's have none."""
    config: dict[str, Any]
    """What config.json says."""
    settings: dict[str, str]
    """The recipe's setting behind a size of config.json."""
    fixed: dict[str, tuple[Any, ...]]
    """What else of config.json a net of ours can be, the value that a missing key means first."""
    weights: list[Weight]


def gpt_form(net: GPT) -> Form:
    """Returns the form of GPT2LMHeadModel, or with norms after the sub-layers of OpenAIGPTLMHeadModel."""
    config, pre = net.config, net.config.norm == "pre"
    names = {
        "attention_norm": "ln_1", "attention.query_key_value": "attn.c_attn", "attention.output": "attn.c_proj",
        "mlp_norm": "ln_2", "expand": "mlp.c_fc", "contract": "mlp.c_proj",
    }  # fmt: skip
    prefix = "transformer."
    weights = [
        Weight("token_embedding.weight", f"{prefix}wte.weight" if pre else f"{prefix}tokens_embed.weight"),
        Weight("position_embedding.weight", f"{prefix}wpe.weight" if pre else f"{prefix}positions_embed.weight"),
    ]
    for index in range(config.num_layers):
        for ours, theirs in names.items():
            weights += _layer(f"blocks.{index}.{ours}", f"{prefix}h.{index}.{theirs}", transposed="norm" not in ours)
    if pre:
        weights += _layer("norm", f"{prefix}ln_f")
    if not config.tied:
        weights.append(Weight("output.weight", "lm_head.weight"))
    return Form(
        prefix=prefix,
        config={
            "architectures": ["GPT2LMHeadModel" if pre else "OpenAIGPTLMHeadModel"],
            "model_type": "gpt2" if pre else "openai-gpt",
            "n_layer": config.num_layers,
            "n_head": config.num_heads,
            "n_embd": config.width,
            "n_positions": net.max_positions,
            "vocab_size": net.token_embedding.num_embeddings,
            "activation_function" if pre else "afn": "gelu_new" if pre else "gelu",
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": config.tied,
            # Our attention weights are not dropped.
            "attn_pdrop": 0.0,
            "resid_pdrop": config.dropout,
            "embd_pdrop": config.dropout,
            # Else transformers takes tokens of GPT-2's own vocabulary.
            "bos_token_id": None,
            "eos_token_id": None,
        },
        settings={
            "n_layer": "model.num_layers",
            "n_head": "model.num_heads",
            "n_embd": "model.width",
            "n_positions": "model.max_positions",
        },
        fixed={
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "afn": ("gelu",),
            "layer_norm_epsilon": (1e-5,),
            "n_inner": (None, 4 * config.width),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
        },
        weights=weights,
    )


def bert_form(net: BERT, class_names: Iterable[str] = ()) -> Form:
    """Returns the form of BertForPreTraining, or of BertForSequenceClassification for a net with classes."""
    config, body = net.config, "bert."
    embeddings = {
        "token_embedding": "word_embeddings", "position_embedding": "position_embeddings",
        "segment_embedding": "token_type_embeddings",
    }  # fmt: skip
    names = {
        "attention.query": "attention.self.query", "attention.key": "attention.self.key",
        "attention.value": "attention.self.value", "attention.output": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm", "expand": "intermediate.dense", "contract": "output.dense",
        "mlp_norm": "output.LayerNorm",
    }  # fmt: skip
    weights = [Weight(f"{ours}.weight", f"{body}embeddings.{theirs}.weight") for ours, theirs in embeddings.items()]
    weights += _layer("embedding_norm", f"{body}embeddings.LayerNorm")
    for index in range(config.num_layers):
        for ours, theirs in names.items():
            weights += _layer(f"layers.{index}.{ours}", f"{body}encoder.layer.{index}.{theirs}")
    weights += _layer("pooler", f"{body}pooler.dense", required=False)
    if net.classifier is not None:
        architecture = "BertForSequenceClassification"
        weights += _layer("classifier", "classifier", required=False)
    else:
        architecture = "BertForPreTraining"
        weights += _layer("token_head.dense", "cls.predictions.transform.dense", required=False)
        weights += _layer("token_head.norm", "cls.predictions.transform.LayerNorm", required=False)
        weights.append(Weight("token_head.output.bias", "cls.predictions.bias", required=False))
        weights += _layer("next_head", "cls.seq_relationship", required=False)
    classes = dict(enumerate(class_names))
    if net.classifier is not None and not classes:
        classes = {index: str(index) for index in range(net.classifier.out_features)}
    return Form(
        prefix=body,
        config={
            "architectures": [architecture],
            "model_type": "bert",
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": config.num_heads,
            "hidden_size": config.width,
            "intermediate_size": config.hidden or 4 * config.width,
            "max_position_embeddings": net.max_positions,
            "type_vocab_size": net.segment_embedding.num_embeddings,
            "vocab_size": net.token_embedding.num_embeddings,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
            "pad_token_id": 0,
            # Our attention weights are not dropped.
            "attention_probs_dropout_prob": 0.0,
            "hidden_dropout_prob": config.dropout,
            **({"id2label": classes, "label2id": {name: index for index, name in classes.items()}} if classes else {}),
        },
        settings={
            "num_hidden_layers": "model.num_layers",
            "num_attention_heads": "model.num_heads",
            "hidden_size": "model.width",
            "intermediate_size": "model.hidden",
            "max_position_embeddings": "model.max_positions",
        },
        fixed={
            "type_vocab_size": (2,),
            "hidden_act": ("gelu",),
            "layer_norm_eps": (1e-12,),
            "pad_token_id": (0,),
            "position_embedding_type": ("absolute", None),
            "is_decoder": (False,),
        },
        weights=weights,
    )


def _layer(ours: str, theirs: str, *, transposed: bool = False, required: bool = True) -> Iterator[Weight]:
    """Yields a layer's weight and bias."""
    yield Weight(f"{ours}.weight", f"{theirs}.weight", transposed, required)
    yield Weight(f"{ours}.bias", f"{theirs}.bias", required=required)
