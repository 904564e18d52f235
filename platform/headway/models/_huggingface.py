"""Checkpoint folders of transformers, read and written without it: config.json and model.safetensors.

Only safetensors are read: the older pytorch_model.bin is a pickle, and loading one runs what is in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from headway.config.errors import UserError
from headway.models._huggingface_forms import Form, Weight, bert_form, gpt_form

if TYPE_CHECKING:
    from headway.config.contracts import DataSpec, ModelConfig
    from headway.models.bert import BERT
    from headway.models.gpt import GPT

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_BUFFERS = (".attn.bias", ".attn.masked_bias", ".position_ids")
"""Causal masks and counters that older versions of transformers saved among the weights."""
_OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}
"""Norms in checkpoints that were made from TensorFlow's."""


def save_huggingface(model_config: ModelConfig, net: nn.Module, spec: DataSpec, folder: Path) -> None:
    """Writes config.json and model.safetensors, which transformers' `from_pretrained` loads.

    Raises:
        UserError: transformers has no such model, or the folder cannot be written.
    """
    if not hasattr(net, "from_huggingface"):
        raise UserError(f"--to: huggingface is for gpt and bert, and this run's model is {model_config.kind}")
    form = gpt_form(net) if model_config.kind == "gpt" else bert_form(net, spec.class_names)  # type: ignore[arg-type]
    ours = net.state_dict()
    weights = {weight.theirs: _written(weight, ours) for weight in form.weights}
    config = {**form.config, "torch_dtype": str(next(net.parameters()).dtype).removeprefix("torch.")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from None


def read_gpt(net: GPT, folder: Path) -> dict[str, Tensor]:
    """Returns a folder's weights by the names of a GPT."""
    if not net.config.bias:
        raise UserError(f"model.bias: is false, and the checkpoint in {folder} has biases; set it to true")
    form = gpt_form(net)
    theirs = _read(form, folder)
    embedding = next(weight.theirs for weight in form.weights if weight.ours == "token_embedding.weight")
    theirs.setdefault("lm_head.weight", theirs[embedding])
    return _matched(net, form, theirs, folder)


def read_bert(net: BERT, folder: Path) -> dict[str, Tensor]:
    """Returns a folder's weights by the names of a BERT; heads that the folder lacks are left out."""
    form = bert_form(net)
    return _matched(net, form, _read(form, folder), folder)


def _written(weight: Weight, ours: dict[str, Tensor]) -> Tensor:
    """Returns a weight as it is saved; a bias that our layer does without is saved as zeros."""
    if weight.ours not in ours:
        beside = ours[weight.ours.removesuffix("bias") + "weight"]
        return torch.zeros(len(beside), dtype=beside.dtype)
    value = ours[weight.ours].detach().cpu()
    return (value.T if weight.transposed else value).contiguous().clone()


def _matched(net: nn.Module, form: Form, theirs: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Returns the folder's weights by our names, each of the shape that the net has."""
    ours, matched = net.state_dict(), {}
    for weight in form.weights:
        found = theirs.get(weight.theirs)
        if found is not None and weight.transposed:
            found = found.T
        if found is not None and found.shape == ours[weight.ours].shape:
            matched[weight.ours] = found
        elif weight.required:
            shape = "nothing" if found is None else tuple(found.shape)
            raise UserError(
                f"init.folder: {folder} is damaged: it has {shape} for {weight.theirs}, and its config.json says "
                f"{tuple(ours[weight.ours].shape)}"
            )
    # A tied layer has one parameter under two names.
    named = list(net.named_parameters(remove_duplicate=False))
    known = {parameter: matched[name] for name, parameter in named if name in matched}
    return {name: known[parameter] for name, parameter in named if parameter in known}


def _read(form: Form, folder: Path) -> dict[str, Tensor]:
    """Returns a folder's weights by transformers' names, all with the body's prefix, once its config fits."""
    _check_config(form, folder)
    known = {weight.theirs for weight in form.weights}
    weights = {}
    for name, value in _read_weights(folder).items():
        if name.endswith(_BUFFERS):
            continue
        for old, new in _OLD_NAMES.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        weights[f"{form.prefix}{name}" if f"{form.prefix}{name}" in known else name] = value
    return weights


def _check_config(form: Form, folder: Path) -> None:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"init.folder: {folder} has no config.json; name a folder that transformers' save_pretrained wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"init.folder: {path} cannot be read ({error})") from None
    ours, theirs = form.config["model_type"], config.get("model_type")
    if theirs != ours:
        norms = {"gpt2": "; set model.norm to pre", "openai-gpt": "; set model.norm to post"}
        hint = norms[theirs] if ours in norms and theirs in norms else ""
        raise UserError(f"init.folder: {folder} holds a {theirs}, and this net reads a {ours}{hint}")
    for key, setting in form.settings.items():
        # A key that is left out means GPT-2's or BERT's base size: nothing that is to be guessed here.
        if key in config and config[key] != form.config[key]:
            raise UserError(
                f"{setting}: is {form.config[key]}, and the checkpoint in {folder} has {config[key]}; "
                f"set it to {config[key]}"
            )
    if config.get("vocab_size", form.config["vocab_size"]) != form.config["vocab_size"]:
        raise UserError(
            f"data.vocabulary: has {form.config['vocab_size']:,} tokens, and the checkpoint in {folder} has "
            f"{config['vocab_size']:,}; set it to the tokenizer.json that belongs to the checkpoint"
        )
    for key, allowed in form.fixed.items():
        if config.get(key, allowed[0]) not in allowed:
            raise UserError(
                f"init.folder: {folder} has {key} {config[key]!r} in its config.json, which headway's net has not "
                f"(it has {allowed[0]!r})"
            )


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """Returns the tensors of model.safetensors, or of the shards that its index names."""
    index = folder / _INDEX
    try:
        names = {_WEIGHTS}
        if index.is_file():
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        weights = {}
        for name in sorted(names):
            with safe_open(folder / name, framework="pt") as file:
                weights.update({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - no mapping
        return weights
    except FileNotFoundError:
        raise UserError(
            f"init.folder: {folder} has no {_WEIGHTS}; save it again with a transformers that writes safetensors"
        ) from None
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"init.folder: the weights in {folder} cannot be read ({error})") from None
