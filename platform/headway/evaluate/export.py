"""A trained net in a form that others read, done only when what was written gives the run's own outputs.

    safetensors   weights by name, and a config.json that this module builds the net from
    onnx          the net's graph, for any number of rows; checked through onnxruntime
    huggingface   what transformers' `from_pretrained` loads: of a gpt or a bert

All is written beside its target and renamed when the check has passed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from headway import __version__
from headway.config.contracts import MODEL, DataSpec, ModelConfig
from headway.config.errors import HeadwayError, UserError
from headway.config.kinds import check_kind, resolve_kind
from headway.config.section import validate_section
from headway.data._reading import plain_spec, vocabulary_of
from headway.data._vocabulary import save_tokenizer
from headway.evaluate.formats import Format
from headway.evaluate.loading import LoadedRun, read_weights
from headway.evaluate.onnx_graph import outputs_of_graph, save_graph
from headway.models._huggingface import save_huggingface

_ROWS = (3, 1)
"""Numbers of rows that the exported net is tried with."""
_TOLERANCE = 1e-4
"""Largest difference of an output from the run's, relative to the largest output or to 1."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    run_id: str
    step: int
    format: Format
    folder: str
    files: list[str]
    checked_with: str
    difference: float
    """Largest difference of an output from the run's, relative to the largest output or to 1."""

    def as_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        return asdict(self)


def export(run: LoadedRun, to: Format, out: str | Path | None = None) -> Exported:
    """Writes a run's net in another form and checks it against the run's.

    Args:
        run: on the CPU.
        to: the form.
        out: the folder, which is empty or not there yet; `export/<to>` of the run folder, replaced, when absent.

    Raises:
        UserError: the net has no such form, or the folder is taken or cannot be written.
        HeadwayError: what was written gives other outputs than the run; nothing is left of it.
    """
    folder = Path(out) if out is not None else run.selection.run.path / "export" / to
    if out is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out: {folder} is there already; name an empty folder or a new one")
    beside, before = (folder.with_name(f".{folder.name}.{which}.{os.getpid()}") for which in ("new", "old"))
    try:
        beside.mkdir(parents=True)
        checked_with, difference = _FORMS[to](run, beside)
        if not difference <= _TOLERANCE:
            raise HeadwayError(
                f"export: {checked_with} gives outputs that differ by {difference:.3g} from those of {run.name}; "
                "nothing was written"
            )
        if folder.exists():
            folder.rename(before)
        try:
            beside.rename(folder)
        except OSError:
            if before.exists():
                before.rename(folder)
            raise
    except OSError as error:
        raise UserError(f"--out: {folder} cannot be written ({error.strerror or error})") from None
    finally:
        for left in (beside, before):
            shutil.rmtree(left, ignore_errors=True)
    files = sorted(path.name for path in folder.iterdir())
    return Exported(run.name, run.selection.step, to, str(folder), files, checked_with, difference)


def example_inputs(spec: DataSpec, rows: int) -> tuple[Tensor, ...]:
    """Returns inputs of the shape that a net reads, the same in every process; none of the tokens is padding."""
    generator = torch.Generator().manual_seed(rows)
    if spec.vocab_size is None:
        return (torch.randn(rows, *spec.input_shape, generator=generator),)
    lengths = [spec.input_shape[0]] + ([spec.target_length] if spec.target_length else [])
    return tuple(torch.randint(1, spec.vocab_size, (rows, length), generator=generator) for length in lengths)


def load_exported(folder: str | Path, *, trust: Collection[str] = ()) -> nn.Module:
    """Returns the net of a folder that `headway export --to safetensors` wrote, in evaluation mode.

    Args:
        folder: with config.json and model.safetensors.
        trust: modules outside headway that it may name.

    Raises:
        UserError: the files are missing, damaged or name code that is not trusted.
    """
    path = Path(folder)
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        tree = check_kind(MODEL, config["model"], trust)
        weights = load_file(path / "model.safetensors")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"{path}: is no folder that headway export --to safetensors wrote ({error})") from None
    model = cast(ModelConfig, validate_section(resolve_kind(MODEL, tree["kind"]), tree, path="model"))
    net = model.build(plain_spec(config["spec"]))
    net.to(next(weight.dtype for weight in weights.values() if weight.is_floating_point()))
    net.load_state_dict(weights)
    return net.eval()


def _safetensors(run: LoadedRun, folder: Path) -> tuple[str, float]:
    save_file(read_weights(run.selection.checkpoint), folder / "model.safetensors", metadata={"format": "pt"})
    _write_config(run, folder)
    net = load_exported(folder, trust=run.selection.trust).to(next(run.net.parameters()).dtype)
    return "headway", _difference(run, lambda inputs: _outputs(net, inputs))


def _onnx(run: LoadedRun, folder: Path) -> tuple[str, float]:
    path = folder / "model.onnx"
    save_graph(run.net, _of_net(run, example_inputs(run.spec, 2)), path)
    _write_config(run, folder)
    return f"onnxruntime {version('onnxruntime')}", _difference(run, lambda inputs: outputs_of_graph(path, inputs))


def _huggingface(run: LoadedRun, folder: Path) -> tuple[str, float]:
    save_huggingface(run.model, run.net, run.spec, folder)
    if "vocabulary" in run.reading:
        save_tokenizer(vocabulary_of(run.reading), folder)
    if find_spec("transformers") is not None:
        return f"transformers {version('transformers')}", _difference(run, _transformers(folder))
    again = run.model.build(run.spec).eval()
    again.load_state_dict(cast(Any, again).from_huggingface(folder), strict=False)
    read_with = "headway's own reader, for transformers is not installed,"
    return read_with, _difference(run, lambda inputs: _outputs(again, inputs))


_FORMS = {"safetensors": _safetensors, "onnx": _onnx, "huggingface": _huggingface}


def _write_config(run: LoadedRun, folder: Path) -> None:
    """Writes what the net is, what it reads and where it comes from."""
    config = {
        "headway": __version__,
        "run": run.name,
        "step": run.selection.step,
        "model": run.model.model_dump(mode="json", exclude_none=True),
        "spec": asdict(run.spec),
        "reading": run.reading,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _transformers(folder: Path) -> Any:
    """Returns a function from inputs to what transformers' own net says of them."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    (architecture,) = json.loads((folder / "config.json").read_text())["architectures"]
    theirs = getattr(transformers, architecture).from_pretrained(folder).eval()

    @torch.no_grad()
    def outputs(inputs: tuple[Tensor, ...]) -> list[Tensor]:
        found = theirs(*inputs)
        names = ("prediction_logits", "seq_relationship_logits") if "prediction_logits" in found else ("logits",)
        return [found[name] for name in names]

    return outputs


def _difference(run: LoadedRun, outputs: Any) -> float:
    """Returns the largest difference between the outputs of the run's net and of the exported one."""
    largest = 0.0
    for rows in _ROWS:
        inputs = _of_net(run, example_inputs(run.spec, rows))
        for own, other in zip(_outputs(run.net, inputs), outputs(inputs), strict=True):
            if own.shape != other.shape:
                return float("inf")
            scale = max(1.0, float(own.abs().max()))
            largest = max(
                largest, float((own.double() - other.double()).abs().max().nan_to_num(nan=float("inf"))) / scale
            )
    return largest


def _of_net(run: LoadedRun, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    dtype = next(run.net.parameters()).dtype
    return tuple(value.to(dtype) if value.is_floating_point() else value for value in inputs)


@torch.no_grad()
def _outputs(net: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Returns a net's outputs."""
    source, *others = inputs
    found = net(source, *others)
    return list(found) if isinstance(found, tuple) else [found]
