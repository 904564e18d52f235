"""What a run's data.json says of its data, turned back into things: how a raw input becomes what the net reads.

`Data.reading` is plain values, all of them optional:

    scaling         {mean, std}: of what is read, nested lists that broadcast over a sample
    image           {channels, height, width, largest, pad}: of a picture before padding; `largest` is white
    columns         [{name, categories}]: of a table; a column without categories is a number
    delimiter       between the values of a row; a comma when absent
    target_scaling  {mean, std}: a prediction times std plus mean is in the target's own unit
    target_names    of real targets
    vocabulary      what `vocabulary_from_json` reads
    special         numbers of the special tokens, where a sample is framed by them

Shapes: N samples, F features, T tokens.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from headway.config.contracts import DataSpec
from headway.config.errors import UserError, suggestion
from headway.data._framing import frame
from headway.data._pictures import read_picture
from headway.data._splits import Scaling
from headway.data._vocabulary import SpecialTokens, Vocabulary, vocabulary_from_json

Reading = Mapping[str, Any]
_TRUTH = {"true": 1.0, "false": 0.0}


class Inputs(NamedTuple):
    """Raw inputs as a net reads them."""

    labels: list[str]
    """What each is called."""
    values: Tensor
    """(N, *input_shape): float32, or tokens."""
    rows: list[int]
    """How many samples each is; a text that is longer than one is several."""
    notes: list[str]
    """What a person should know of how they were read."""


def plain_spec(tree: Mapping[str, Any]) -> DataSpec:
    """Returns the spec that was written as plain values."""
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in tree.items()}
    return DataSpec(**fields)


def vocabulary_of(reading: Reading) -> Vocabulary:
    """Returns the vocabulary of a run's text.

    Raises:
        UserError: it has none.
    """
    if "vocabulary" not in reading:
        raise UserError("data.json: has no vocabulary, so text cannot be turned into tokens; use a run on text")
    # With special tokens of its own, those that a person writes are text like any other.
    return vocabulary_from_json(reading["vocabulary"], literal="special" in reading)


def to_target_unit(output_NF: Tensor, reading: Reading) -> Tensor:
    """Returns predictions in the target's own unit, float64."""
    if "target_scaling" not in reading:
        return output_NF.double()
    scaling = _scaling(reading["target_scaling"])
    return output_NF.double() * scaling.std + scaling.mean


def read_inputs(given: Sequence[str], *, spec: DataSpec, reading: Reading) -> Inputs:
    """Returns what the net reads for image files, rows of values, CSV files or texts, by what it was trained on.

    Raises:
        UserError: an input that is missing, cannot be read, or has too few or too many values.
    """
    if "image" in reading:
        pictures = [_read_image(path, spec=spec, reading=reading) for path in given]
        return Inputs(list(given), torch.stack(pictures), [1] * len(pictures), [])
    if spec.input_kind == "features":
        return _read_rows(given, spec=spec, reading=reading)
    if spec.input_kind == "image":
        raise UserError("data.json: does not say how an image is read; give the Data of your own kind a `reading`")
    if spec.input_kind == "tokens" and "special" in reading:
        return _read_texts(given, spec=spec, reading=reading)
    raise UserError(
        f"INPUT: this run reads {spec.input_kind}; predict takes images, rows of values, or text of a class"
    )


def _scaling(tree: Mapping[str, Any]) -> Scaling:
    return Scaling(torch.tensor(tree["mean"], dtype=torch.float64), torch.tensor(tree["std"], dtype=torch.float64))


# ---- images ----------------------------------------------------------------------------------------


def _read_image(path: str, *, spec: DataSpec, reading: Reading) -> Tensor:
    """Returns float32 of the spec's shape."""
    if not Path(path).is_file():
        raise UserError(f"INPUT: {path} is not there; this run reads image files")
    form = reading["image"]
    sizes = {name: form[name] for name in ("channels", "height", "width")}
    pixels = torch.from_numpy(read_picture(path, **sizes, setting="INPUT").copy()).permute(2, 0, 1)
    # In the training's own whole steps between black and white.
    stored = (pixels.double() * (form["largest"] / 255)).round()
    padded = torch.nn.functional.pad(stored, (form["pad"],) * 4)
    value = (
        _scaling(reading["scaling"]).apply(padded.to(torch.uint8), torch.float32) if "scaling" in reading else padded
    )
    return value.float().reshape(spec.input_shape)


# ---- rows of a table -------------------------------------------------------------------------------


def _read_rows(given: Sequence[str], *, spec: DataSpec, reading: Reading) -> Inputs:
    names = spec.feature_names or tuple(f"value {place + 1}" for place in range(math.prod(spec.input_shape)))
    columns: list[Mapping[str, Any]] = reading.get("columns") or [{"name": name} for name in names]
    delimiter = reading.get("delimiter", ",")
    labels: list[str] = []
    encoded: list[list[float]] = []
    notes: list[str] = []
    for text in given:
        for label, cells in _cells(text, columns, delimiter):
            labels.append(label)
            encoded.append(_encode(cells, columns, label, notes))
    if not encoded:
        raise UserError(f"INPUT: {', '.join(given)} has no rows; give it some")
    values = torch.tensor(encoded, dtype=torch.float64)
    if "scaling" in reading:
        values = _scaling(reading["scaling"]).apply(values, torch.float64)
    return Inputs(labels, values.float().reshape(-1, *spec.input_shape), [1] * len(labels), notes)


def _cells(text: str, columns: list[Mapping[str, Any]], delimiter: str) -> list[tuple[str, list[str]]]:
    """Returns the rows of a CSV file, or the one that the text itself is, with a label each."""
    if not (text.endswith(".csv") or Path(text).is_file()):
        return [(text, _split_line(text, delimiter))]
    try:
        with Path(text).open(encoding="utf-8-sig", newline="") as file:
            lines = [row for row in csv.reader(file, delimiter=delimiter, strict=True) if row]
    except OSError as error:
        raise UserError(f"INPUT: {text} cannot be read ({error.strerror or error})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"INPUT: {text} is no CSV file ({error})") from None
    places = _places(text, lines[0], columns) if lines else None
    if places is None:
        return [(f"{text} row {number}", cells) for number, cells in enumerate(lines, 1)]
    rows = []
    for number, cells in enumerate(lines[1:], 1):
        if len(cells) != len(lines[0]):
            raise UserError(f"INPUT: {text} row {number} has {len(cells)} values and its header {len(lines[0])} names")
        rows.append((f"{text} row {number}", [cells[place] for place in places]))
    return rows


def _places(path: str, first: list[str], columns: list[Mapping[str, Any]]) -> list[int] | None:
    """Returns where each column is by the header, or None where the first line is a row already."""
    header = [cell.strip() for cell in first]
    missing = [column["name"] for column in columns if column["name"] not in header]
    if not missing:
        return [header.index(column["name"]) for column in columns]
    numbers = [cell for cell, column in zip(header, columns, strict=False) if not column.get("categories")]
    if len(missing) == len(columns) and all(_number(cell) is not None for cell in numbers):
        return None
    raise UserError(f"INPUT: {path} has no column {missing[0]!r}{suggestion(missing[0], header)}")


def _split_line(text: str, delimiter: str) -> list[str]:
    return next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])


def _encode(cells: list[str], columns: list[Mapping[str, Any]], label: str, notes: list[str]) -> list[float]:
    """Returns a row's values, a column of categories as one value each."""
    if len(cells) != len(columns):
        names = ", ".join(column["name"] for column in columns[:4]) + (", ..." if len(columns) > 4 else "")
        raise UserError(
            f"INPUT: {_short(label)} has {len(cells)} {'value' if len(cells) == 1 else 'values'}, and this run reads "
            f"{len(columns)} ({names})"
        )
    values: list[float] = []
    for cell, column in zip((cell.strip() for cell in cells), columns, strict=True):
        categories = column.get("categories")
        if categories is not None:
            if cell not in categories:
                notes.append(f"{_short(label)}: the run never saw {cell!r} in {column['name']!r}")
            values += [float(cell == category) for category in categories]
            continue
        number = _number(cell)
        if number is None:
            raise UserError(f"INPUT: {_short(label)} has {_short(cell)!r} in {column['name']!r}, which is no number")
        values.append(number)
    return values


def _number(cell: str) -> float | None:
    """Returns a finite number, or None."""
    if cell.strip().lower() in _TRUTH:
        return _TRUTH[cell.strip().lower()]
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


# ---- texts -----------------------------------------------------------------------------------------


def _read_texts(given: Sequence[str], *, spec: DataSpec, reading: Reading) -> Inputs:
    vocabulary, special = vocabulary_of(reading), SpecialTokens(**reading["special"])
    samples = [frame(vocabulary.encode(_text(place)), spec.input_shape[0], special) for place in given]
    return Inputs([_short(place) for place in given], torch.cat(samples), [len(sample) for sample in samples], [])


def _text(place: str) -> str:
    """Returns the text of a file, or what was given as it is."""
    try:
        found = Path(place).is_file()
    except OSError:
        # Too long for a name.
        found = False
    try:
        text = Path(place).read_text(encoding="utf-8-sig") if found else place
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"INPUT: {place} cannot be read as UTF-8 text ({error})") from None
    if not text.strip():
        raise UserError(f"INPUT: {place!r} is no text; give it some")
    return text


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
