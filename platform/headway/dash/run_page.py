"""What one run's page shows, from its folder."""

from __future__ import annotations

import json
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headway.dash.entries import MAX_RECIPE_BYTES, MAX_STATUS_BYTES, Entry
from headway.dash.files import list_below, open_below, read_below
from headway.dash.runs import Runs
from headway.dash.series import Curves, as_list

MAX_LOG_BYTES = 256 << 10
MAX_FILE_BYTES = 64 << 20
MAX_MANIFEST_BYTES = 8 << 20
_MAX_MEDIA = 500
_LOG = re.compile(r"rank-(\d{1,6})\.log")
_HEALTH = re.compile(r"health/(.+)/([^/]+)")
_MEDIUM = re.compile(r"(.+)-(\d{1,15})")
_IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp",
           ".svg": "image/svg+xml"}  # fmt: skip
_TABLES = (".csv", ".json")
_TEXTS = (".txt", ".log", ".md")


def run_page(runs: Runs, curves: Curves, entry: Entry, *, source: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns everything about a run but its curves and logs.

    Args:
        runs: the table.
        curves: the metrics.
        entry: the run.
        source: what is known of a run that lies elsewhere: manifest and problems.
    """
    root, problems = runs.root, list(entry.problems)
    if source is None:
        manifest = _json(root, entry, "manifest.json", MAX_MANIFEST_BYTES, problems)
        status = _json(root, entry, "status.json", MAX_STATUS_BYTES, None)
        recipe_yaml = _text(root, entry, "recipe.yaml")
    else:
        manifest, status, recipe_yaml = source, {}, ""
    names = curves.names(entry)
    problem, torn = curves.problem(entry), curves.torn(entry)
    if problem is not None:
        problems.append(f"metrics.jsonl: {problem}")
    if torn:
        problems.append(f"metrics.jsonl: {torn} torn {'line' if torn == 1 else 'lines'}")
    columns = [name for name in names if not name.startswith("health/")]
    return {
        "id": entry.id,
        "row": runs.row(entry, columns),
        "recipe": entry.config.as_dict(),
        "recipe_yaml": recipe_yaml,
        "status": status,
        "manifest": manifest,
        "metrics": names,
        "health": health_names(names),
        "histograms": [],
        "logs": _listed(problems, "logs", lambda: _logs(root, entry)),
        "checkpoints": _listed(problems, "checkpoints", lambda: _checkpoints(root, entry)),
        "media": _listed(problems, "media", lambda: _media(root, entry)),
        "resumed": manifest.get("resumed", []) if isinstance(manifest.get("resumed", []), list) else [],
        "problems": problems,
    }


def data_spec(root: Path, entry: Entry) -> dict[str, Any]:
    """Returns what data.json says of a run's data; {} where there is none."""
    spec = _json(root, entry, "data.json", MAX_STATUS_BYTES, None).get("spec")
    return spec if isinstance(spec, dict) else {}


def health_map(curves: Curves, entry: Entry, order: list[str], kind: str, *, points: int) -> dict[str, Any]:
    """Returns one kind of health by layers and steps; null where a layer has nothing.

    Args:
        curves: the metrics.
        entry: the run.
        order: the layers, in the net's order.
        kind: such as grad_norm.
        points: at most so many steps; of more, as many evenly spaced ones.
    """
    found = {layer: curves.rows(entry, f"health/{layer}/{kind}") for layer in order}
    found = {layer: rows for layer, rows in found.items() if len(rows.value)}
    if not found:
        return {"kind": kind, "layers": [], "steps": [], "values": []}
    steps = np.unique(np.concatenate([rows.step for rows in found.values()]))
    steps = steps[np.isfinite(steps)]
    if len(steps) > points:
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, points).round().astype(int))]
    values = []
    for rows in found.values():
        line = np.full(len(steps), np.nan)
        place = np.searchsorted(steps, rows.step)
        place[place == len(steps)] = 0
        here = steps[place] == rows.step
        line[place[here]] = rows.value[here]
        values.append(as_list(line))
    return {"kind": kind, "layers": list(found), "steps": as_list(steps), "values": values}


def log_part(root: Path, parts: tuple[str, ...], begin: int) -> dict[str, Any]:
    """Returns a piece of a log: from a byte on, or the last so many bytes where that is negative.

    Raises:
        OSError: there is no such log.
    """
    with open_below(root, *parts) as file:
        size = os.fstat(file.fileno()).st_size
        start = max(0, size + begin) if begin < 0 else min(begin, size)
        file.seek(start)
        raw = file.read(MAX_LOG_BYTES)
    return piece(raw, start, size)


def piece(raw: bytes, start: int, size: int) -> dict[str, Any]:
    """Returns bytes of a log as text, with where the next piece begins; a character is not cut in two."""
    end = start + len(raw)
    if end < size or (raw and raw[-1] >= 0x80):
        for cut in range(1, min(4, len(raw)) + 1):
            if raw[-cut] >= 0xC0:
                raw = raw[:-cut] if len(raw) > cut else raw
                break
            if raw[-cut] < 0x80:
                break
    return {
        "text": raw.decode("utf-8", "replace"),
        "next": start + len(raw),
        "size": size,
        "truncated": start + len(raw) < size,
    }


def medium_kind(path: str) -> str | None:
    """Returns how a file is shown by its name: image, table or text; None where it is none of these."""
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 - a name, no path
    if suffix in _IMAGES:
        return "image"
    return "table" if suffix in _TABLES else "text" if suffix in _TEXTS else None


def media_file(root: Path, folder: tuple[str, ...], path: str) -> tuple[bytes, str, bool]:
    """Returns a file of a run's media folder, its type, and whether a browser may show it.

    Raises:
        OSError: it is not there, is larger than what is served, or lies elsewhere.
    """
    parts = path.split("/")
    if parts[0] != "media" or len(parts) < 2:
        raise FileNotFoundError("only files of the run's media folder are served")
    content = read_below(root, *folder, *parts, limit=MAX_FILE_BYTES)
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 - a name, no path
    if suffix in _IMAGES:
        return content, _IMAGES[suffix], True
    if suffix in (*_TEXTS, ".csv"):
        return content, "text/plain; charset=utf-8", True
    if suffix == ".json":
        return content, "application/json", True
    return content, "application/octet-stream", False


def health_names(names: list[str]) -> dict[str, list[str]]:
    """Returns the layers whose health is told, in the order of the rows, which is the net's; and the kinds."""
    layers: OrderedDict[str, None] = OrderedDict()
    kinds: OrderedDict[str, None] = OrderedDict()
    for name in names:
        match = _HEALTH.fullmatch(name)
        if match:
            layers[match[1]] = None
            kinds[match[2]] = None
    return {"layers": list(layers), "kinds": list(kinds)}


def _listed(problems: list[str], what: str, listing: Callable[[], list[Any]]) -> list[Any]:
    try:
        return listing()
    except OSError as error:
        problems.append(f"{what}: {error.strerror or error}")
        return []


def _logs(root: Path, entry: Entry) -> list[int]:
    if entry.row["source"] != "headway":
        return []
    matches = (_LOG.fullmatch(name) for name, _ in list_below(root, entry.folder, "logs"))
    return sorted(int(match[1]) for match in matches if match)


def _checkpoints(root: Path, entry: Entry) -> list[dict[str, Any]]:
    if entry.row["source"] != "headway":
        return []
    folders = [name for name, _ in list_below(root, entry.folder, "checkpoints") if name.isdigit()]
    best = entry.best_step
    found: list[dict[str, Any]] = []
    for name in folders:
        files = list_below(root, entry.folder, "checkpoints", name)
        found.append(
            {
                "step": int(name),
                "bytes": sum(info.st_size for _, info in files),
                "best": best is not None and int(name) == best,
                "newest": name == folders[-1],
                "written": max((info.st_mtime for _, info in files), default=None),
            }
        )
    return found


def _media(root: Path, entry: Entry) -> list[dict[str, Any]]:
    if entry.row["source"] != "headway":
        return []
    found: list[dict[str, Any]] = []
    waiting: list[tuple[str, ...]] = [("media",)]
    while waiting and len(found) < _MAX_MEDIA:
        parts = waiting.pop(0)
        for name, info in list_below(root, entry.folder, *parts):
            if name.startswith("."):
                continue
            if stat.S_ISDIR(info.st_mode):
                if len(parts) < 4:
                    waiting.append((*parts, name))
            elif _is_text(name):
                found.append(_medium((*parts, name)))
    return sorted(found[:_MAX_MEDIA], key=lambda one: (one["step"] is None, one["step"] or 0, one["name"]))


def _medium(parts: tuple[str, ...]) -> dict[str, Any]:
    """Returns how a file among the media is shown: `<name>-<step>.<suffix>`, or of another name and no step."""
    stem, suffix = os.path.splitext("/".join(parts[1:]))  # noqa: PTH122 - a name, no path
    suffix = suffix.lower()
    match = _MEDIUM.fullmatch(stem)
    kind = "image" if suffix in _IMAGES else "table" if suffix in _TABLES else "text"
    return {
        "name": match[1] if match else "/".join(parts[1:]),
        "step": int(match[2]) if match else None,
        "kind": kind,
        "path": "/".join(parts),
    }


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json(root: Path, entry: Entry, name: str, limit: int, problems: list[str] | None) -> dict[str, Any]:
    try:
        value = json.loads(read_below(root, entry.folder, name, limit=limit))
    except FileNotFoundError:
        return {}
    except OSError as error:
        if problems is not None:
            problems.append(f"{name}: {error.strerror or error}")
        return {}
    except (ValueError, RecursionError):
        if problems is not None:
            problems.append(f"{name}: is not JSON")
        return {}
    return value if isinstance(value, dict) else {}


def _text(root: Path, entry: Entry, name: str) -> str:
    try:
        return read_below(root, entry.folder, name, limit=MAX_RECIPE_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _is_same(one: Any, other: Any) -> bool:
    """Returns whether two values of a setting are one: 1 and 1.0 are, true and 1 are not."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def compare(runs: Runs, curves: Curves, entries: list[Entry]) -> dict[str, Any]:
    """Returns runs side by side: where their recipes differ, and the metrics that any has."""
    names = dict.fromkeys(name for entry in entries for name in entry.config.names)
    differences, same = [], 0
    for name in names:
        values = [entry.config.get(name) for entry in entries]
        if all(_is_same(value, values[0]) for value in values):
            same += 1
        else:
            differences.append({"name": name, "values": values})
    metrics = dict.fromkeys(name for entry in entries for name in curves.names(entry))
    return {
        "runs": [runs.row(entry) for entry in entries],
        "differences": differences,
        "same": same,
        "metrics": list(metrics),
    }
