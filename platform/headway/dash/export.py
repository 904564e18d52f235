"""The dashboard as a folder of files: the same page, which finds its answers in `data/` and needs no server.

A page that is opened from a disk may load scripts and nothing else, so each answer is a script that hands it over:
`data/<key>.js`, with a key that page and export make of the question by one rule.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from headway.config.errors import UserError
from headway.dash.app import Ask, Site, as_json
from headway.dash.assets import FOLDER
from headway.dash.run_page import health_names

Question = tuple[str, dict[str, str]]
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_MAX_KEY = 150
_KEPT = 100
_MARK = "<!-- EXPORT -->"


def answer_key(path: str, parameters: Mapping[str, str]) -> str:
    """Returns the name under which the answer to a question lies.

    Args:
        path: such as `api/runs`, not encoded.
        parameters: of the question; those that are empty do not count.
    """
    given = "&".join(f"{name}={value}" for name, value in sorted(parameters.items()) if value != "")
    text = f"{path}?{given}" if given else path
    raw = text.encode("utf-8", "replace")
    name = "".join(chr(byte) if chr(byte) in _PLAIN else f"~{byte:02X}" for byte in raw)
    return name if len(name) <= _MAX_KEY else f"{name[:_KEPT]}-{_fnv1a(raw):016x}"


def _fnv1a(data: bytes) -> int:
    """Returns the 64-bit FNV-1a hash of bytes. Source: RFC 9923."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def export(site: Site, folder: Path, *, progress: Callable[[str], None] = lambda _: None) -> int:
    """Writes the dashboard of a site; returns how many runs are in it.

    Args:
        site: what is shown.
        folder: where; new or empty.
        progress: is told how far it is.

    Raises:
        UserError: the folder holds something, or cannot be written.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"--export: {folder} is not empty; name a new folder")
        (folder / "data" / "files").mkdir(parents=True, exist_ok=True)
        _copy_page(site, folder)
        return _write_answers(site, folder, progress)
    except OSError as error:
        raise UserError(f"--export: {folder} cannot be written ({error.strerror or error})") from None


def _copy_page(site: Site, folder: Path) -> None:
    shutil.copytree(FOLDER, folder / "assets", ignore=shutil.ignore_patterns("index.html"))
    page = site.assets.page().content.decode()
    (folder / "index.html").write_text(
        page.replace(_MARK, '<script defer src="data/index.js"></script>'), encoding="utf-8"
    )
    (folder / "data" / "index.js").write_text("window.HEADWAY_EXPORT = {data: {}};\n")


def _write_answers(site: Site, folder: Path, progress: Callable[[str], None]) -> int:
    def put(path: str, parameters: dict[str, str], answer: Any) -> None:
        key = answer_key(path, parameters)
        text = f'window.HEADWAY_EXPORT.put("{key}",'.encode() + as_json(answer) + b");\n"
        (folder / "data" / f"{key}.js").write_bytes(text)

    about = site.about()
    put("api/about", {}, {**about, "export": True, "read_only": True, "actions": False, "token_needed": False})
    table = site.table(Ask({"all": "1"}))
    put("api/runs", {"all": "1"}, table)
    for (path, parameters), answer in _of_sweeps_and_jobs(site):
        put(path, parameters, answer)
    names = [row["id"] for row in table["rows"]]
    for number, run_id in enumerate(names):
        try:
            for (path, parameters), answer in _of_run(site, run_id, folder):
                put(path, parameters, answer)
        except FileNotFoundError:
            # Deleted meanwhile.
            continue
        if number % 100 == 99:
            progress(f"{number + 1:,} of {len(names):,} runs")
    return len(names)


def _of_run(site: Site, run_id: str, folder: Path) -> Iterator[tuple[Question, Any]]:
    """Yields everything that the page asks of a run, and copies its pictures."""
    page = site.run(run_id)
    path = f"api/run/{run_id}"
    yield (path, {}), page
    for axis in ("step", "time", "tokens"):
        parameters = {"points": "1000", "x": axis}
        try:
            yield (f"{path}/series", parameters), site.series(run_id, Ask(parameters))
        except UserError:
            # It reads no tokens.
            continue
    for kind in health_names(page["metrics"])["kinds"]:
        parameters = {"kind": kind, "points": "200"}
        yield (f"{path}/health", parameters), site.health(run_id, Ask(parameters))
    for name in page["histograms"]:
        parameters = {"name": name, "points": "200"}
        yield (f"{path}/histogram", parameters), site.histogram(run_id, Ask(parameters))
    for rank in page["logs"]:
        parameters = {"from": "-65536", "rank": str(rank)}
        yield (f"{path}/log", parameters), site.run_log(run_id, Ask(parameters))
    for medium in page["media"]:
        try:
            content, _, _ = site.media_file(run_id, medium["path"])
        except OSError:
            continue
        if medium["kind"] == "image":
            copy = folder / "data" / "files" / run_id / medium["path"]
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
        else:
            yield (f"{path}/file", {"path": medium["path"]}), {"text": content.decode("utf-8", "replace")}


def _of_sweeps_and_jobs(site: Site) -> Iterator[tuple[Question, Any]]:
    sweeps = site.sweeps.listed()
    yield ("api/sweeps", {}), {"sweeps": sweeps}
    for sweep in sweeps:
        try:
            yield (f"api/sweep/{sweep['id']}", {}), site.sweeps.page(sweep["id"], wait=True)
        except (UserError, OSError):
            # What is wrong with it is in the list.
            continue
    jobs = site.jobs.answer(wait=True)
    yield ("api/jobs", {}), jobs
    for job in jobs["jobs"]:
        parameters = {"from": "-65536", "task": str(job["task"])}
        try:
            yield (f"api/job/{job['id']}/log", parameters), site.jobs.log(job["id"], job["task"], -65536)
        except UserError:
            # It has printed nothing, or its launcher cannot be asked.
            continue
