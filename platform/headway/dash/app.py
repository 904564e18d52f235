"""The web application: paths and what they answer. What may be asked at all is the guard's to say."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from headway import __version__
from headway.config.errors import UserError
from headway.dash import run_page
from headway.dash.actions import Actions
from headway.dash.assets import Asset, Assets
from headway.dash.entries import Entry
from headway.dash.guard import FILE_CSP, TOKEN_HEADER, Access, Guard
from headway.dash.jobs import Jobs
from headway.dash.live import MAX_WATCHED, Live
from headway.dash.offline_wandb import LOG_NAME, OfflineRuns
from headway.dash.query import Query
from headway.dash.runs import Runs
from headway.dash.series import AXES, MAX_NAMES, Axis, Curves, per_step
from headway.dash.sweeps import Sweeps

MAX_COMPARED = 50
_YEAR = "public, max-age=31536000, immutable"


@dataclass
class Site:
    """Everything that answers are made from.

    Attributes:
        runs: the table.
        curves: the metrics.
        sweeps: the sweeps.
        jobs: the jobs.
        read_only: whether nothing can be changed.
        host: the address that it is bound to.
        access: who may ask.
        source: gives what is known of a run that lies elsewhere.
    """

    runs: Runs
    curves: Curves
    sweeps: Sweeps
    jobs: Jobs
    read_only: bool
    host: str
    access: Access
    offline: OfflineRuns | None = None

    def __post_init__(self) -> None:
        self.started = time.time()
        self.assets = Assets()
        self.live = Live(self.runs, self.curves)
        self.actions = Actions(self.runs, self.sweeps, self.jobs, read_only=self.read_only)

    @classmethod
    def of(
        cls,
        root: Path,
        *,
        cache: Path | None,
        access: Access,
        host: str,
        read_only: bool = False,
        offline: OfflineRuns | None = None,
    ) -> Site:
        """Returns the site of a runs folder, with the runs that Weights & Biases wrote elsewhere."""
        if offline is None:
            runs = Runs(root)
            return cls(runs, Curves(root, cache), Sweeps(runs), Jobs(root), read_only, host, access)
        runs = Runs(root, offline.entries())
        curves = Curves(root, cache, offline.columns)
        return cls(runs, curves, Sweeps(runs), Jobs(root), read_only, host, access, offline)

    # ---- answers, by what was asked ------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """Returns what the page needs to know of the server."""
        return {
            "version": __version__,
            "runs_folder": str(self.runs.root),
            "read_only": self.read_only,
            "token_needed": self.access.token_needed,
            "actions": not self.read_only,
            "export": False,
            "host": self.host,
            "started": self.started,
        }

    def table(self, ask: Ask) -> dict[str, Any]:
        """Returns a page of the table of runs."""
        columns = tuple(filter(None, ask.text("columns").split(",")))[:40]
        return self.runs.answer(
            Query(
                words=ask.text("q")[:2000],
                sort=ask.text("sort") or "-started",
                group=ask.text("group"),
                page=max(0, ask.whole("page", 0)),
                size=ask.whole("size", 50),
                columns=columns,
                everything=ask.text("all") == "1",
            )
        )

    def run(self, run_id: str) -> dict[str, Any]:
        """Returns a run's page."""
        entry = self.entry(run_id)
        offline = self._offline(entry)
        if offline is None:
            return run_page.run_page(self.runs, self.curves, entry)
        page = run_page.run_page(self.runs, self.curves, entry, source=offline.source(entry))
        return {**page, **offline.files(entry)}

    def series(self, run_id: str, ask: Ask) -> dict[str, Any]:
        """Returns metrics of a run as curves."""
        entry, axis = self.entry(run_id), ask.axis()
        names = [name for name in ask.text("names").split(",") if name]
        if len(names) > MAX_NAMES:
            raise UserError(f"names: {len(names)} metrics; ask for at most {MAX_NAMES} at once")
        if not names:
            names = [name for name in self.curves.names(entry) if not name.startswith("health/")]
        spec = run_page.data_spec(self.runs.root, entry) if axis in ("tokens", "samples") else {}
        found = self.curves.curves(
            entry,
            names,
            axis=axis,
            scale=per_step(entry, axis, spec),
            points=ask.whole("points", 1000),
            begin=ask.real("from"),
            end=ask.real("to"),
        )
        return {"x": axis, "series": found}

    def health(self, run_id: str, ask: Ask) -> dict[str, Any]:
        """Returns one kind of a run's health, by layer and step."""
        entry = self.entry(run_id)
        layers = run_page.health_names(self.curves.names(entry))["layers"]
        points = min(max(ask.whole("points", 200), 2), 2000)
        return run_page.health_map(self.curves, entry, layers, ask.text("kind") or "grad_norm", points=points)

    def histogram(self, run_id: str, ask: Ask) -> dict[str, Any]:
        """Returns how the values of a name were spread, by step and bin."""
        entry, name = self.entry(run_id), ask.text("name")
        offline = self._offline(entry)
        if offline is None:
            raise FileNotFoundError(f"{run_id}: has logged no histogram {name[:200]}")
        return offline.histogram(entry, name, points=min(max(ask.whole("points", 200), 2), 2000))

    def run_log(self, run_id: str, ask: Ask) -> dict[str, Any]:
        """Returns a piece of a rank's log."""
        entry = self.entry(run_id)
        offline = self._offline(entry)
        if offline is not None:
            folder = offline.log_folder(entry)
            if folder is None:
                raise FileNotFoundError(f"{run_id}: has no logs")
            return run_page.log_part(folder, (LOG_NAME,), ask.whole("from", 0))
        name = f"rank-{ask.whole('rank', 0)}.log"
        return run_page.log_part(self.runs.root, (entry.folder, "logs", name), ask.whole("from", 0))

    def media_file(self, run_id: str, path: str) -> tuple[bytes, str, bool]:
        """Returns a picture, table or text of a run, its type, and whether a browser may show it.

        Raises:
            OSError: it is not there, is larger than what is served, or lies elsewhere.
        """
        entry = self.entry(run_id)
        offline = self._offline(entry)
        if offline is None:
            return run_page.media_file(self.runs.root, (entry.folder,), path)
        folder = offline.media_folder(entry, path)
        if folder is None:
            raise FileNotFoundError(f"{run_id}: has logged no {path}")
        return run_page.media_file(folder, (), path)

    def _offline(self, entry: Entry) -> OfflineRuns | None:
        return self.offline if entry.row["source"] == "wandb" else None

    def compared(self, ask: Ask) -> dict[str, Any]:
        """Returns runs side by side: those that are there, with the names of those that are not, or are too many.

        Raises:
            FileNotFoundError: there is none of them.
        """
        names = list(dict.fromkeys(name for name in ask.text("runs").split(",") if name))
        found = {name: self.runs.find(name) for name in names[:MAX_COMPARED]}
        entries = [entry for entry in found.values() if entry is not None]
        if not entries:
            raise FileNotFoundError(f"{', '.join(found)}: no run of that name in {self.runs.root}")
        missing = [name for name, entry in found.items() if entry is None]
        compared = run_page.compare(self.runs, self.curves, entries)
        return {**compared, "missing": missing, "left_out": names[MAX_COMPARED:]}

    def entry(self, run_id: str) -> Entry:
        """Returns a run.

        Raises:
            FileNotFoundError: there is none of that id.
        """
        entry = self.runs.find(run_id)
        if entry is None:
            raise FileNotFoundError(f"{run_id}: no run of that name in {self.runs.root}")
        return entry


class Ask:
    """The parameters of a question.

    Args:
        values: by name.
    """

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    def text(self, name: str) -> str:
        """Returns a parameter; "" where it is not given."""
        return self._values.get(name, "")

    def whole(self, name: str, default: int) -> int:
        """Returns a whole number.

        Raises:
            UserError: it is none.
        """
        given = self._values.get(name, "")
        try:
            return int(given) if given else default
        except ValueError:
            raise UserError(f"{name}: {given[:40]!r} should be a whole number") from None

    def real(self, name: str) -> float | None:
        """Returns a number; None where it is not given.

        Raises:
            UserError: it is none.
        """
        given = self._values.get(name, "")
        try:
            value = float(given) if given else None
        except ValueError:
            value = math.nan
        if value is not None and not math.isfinite(value):
            raise UserError(f"{name}: {given[:40]!r} should be a number")
        return value

    def axis(self) -> Axis:
        """Returns what is along x.

        Raises:
            UserError: there is no such axis.
        """
        given = self._values.get("x") or "step"
        if given in AXES:
            return cast(Axis, given)
        raise UserError(f"x: {given[:40]!r}; there is {', '.join(AXES)}")


def build_app(site: Site) -> Starlette:
    """Returns the application of a site."""

    def get(path: str, answer: Callable[[Request], Any]) -> Route:
        return Route(path, lambda request: _json_answer(answer, request), methods=["GET"])

    def post(path: str, action: str) -> Route:
        return Route(path, lambda request: _json_answer(_doing(site, action), request), methods=["POST"])

    routes = [
        get("/api/about", lambda _: site.about()),
        get("/api/runs", lambda request: site.table(_ask(request))),
        get("/api/run/{id}", lambda request: site.run(_id(request))),
        get("/api/run/{id}/series", lambda request: site.series(_id(request), _ask(request))),
        get("/api/run/{id}/health", lambda request: site.health(_id(request), _ask(request))),
        get("/api/run/{id}/histogram", lambda request: site.histogram(_id(request), _ask(request))),
        get("/api/run/{id}/log", lambda request: site.run_log(_id(request), _ask(request))),
        Route("/api/run/{id}/file", lambda request: _file(site, request), methods=["GET"]),
        get("/api/compare", lambda request: site.compared(_ask(request))),
        get("/api/sweeps", lambda _: {"sweeps": site.sweeps.listed()}),
        get("/api/sweep/{id}", lambda request: site.sweeps.page(_id(request))),
        get("/api/jobs", lambda _: site.jobs.answer()),
        get("/api/job/{id:path}/log", lambda request: _job_log(site, request)),
        post("/api/job/{id:path}/cancel", "cancel-job"),
        post("/api/job/{id:path}/retry", "retry-job"),
        post("/api/run/{id}/delete", "delete-run"),
        post("/api/sweep/{id}/stop", "stop-sweep"),
        Route("/api/login", lambda request: _login(site, request), methods=["POST"]),
        Route("/api/events", _events(site), methods=["GET"]),
        get("/api/{rest:path}", _nothing),
        Route("/assets/{name:path}", lambda request: _asset(site, request), methods=["GET"]),
        Route("/{rest:path}", lambda request: _send(request, site.assets.page(), "no-cache"), methods=["GET"]),
    ]
    middleware = [
        Middleware(Guard, access=site.access),
        Middleware(GZipMiddleware, minimum_size=1000, compresslevel=5),
    ]
    handlers = {HTTPException: _refused, Exception: _broken}
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


def as_json(value: Any) -> bytes:
    """Returns JSON as every browser reads it: nan and inf are null, all else than ASCII is escaped."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"), default=str).encode()
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, separators=(",", ":"), default=str).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _ask(request: Request) -> Ask:
    return Ask(dict(request.query_params))


def _id(request: Request) -> str:
    return str(request.path_params["id"])


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _failure(error.status_code, str(error.detail))


async def _broken(_: Request, error: Exception) -> Response:
    """Answers in one line where this server has a bug; the traceback is in its terminal."""
    return _failure(500, f"a bug of headway's: {type(error).__name__}; the terminal of `headway dash` tells more")


def _nothing(request: Request) -> Any:
    raise FileNotFoundError(f"{request.url.path}: there is nothing of that name")


def _json_answer(answer: Callable[[Request], Any], request: Request) -> Response:
    """Returns an answer as JSON, or the one line that says why there is none."""
    try:
        return _response(200, as_json(answer(request)))
    except UserError as error:
        return _failure(400, str(error))
    except FileNotFoundError as error:
        return _failure(404, f"{error.strerror}: {error.filename}" if error.strerror else str(error))
    except PermissionError as error:
        return _failure(403, f"may not be read: {error.strerror}")
    except OSError as error:
        return _failure(404, str(error.strerror or error))


def _failure(status: int, reason: str) -> Response:
    return _response(status, as_json({"error": " ".join(reason.split())}))


def _response(status: int, body: bytes) -> Response:
    return Response(body, status, {"cache-control": "no-store"}, "application/json")


def _doing(site: Site, action: str) -> Callable[[Request], Any]:
    def do(request: Request) -> Any:
        address = request.client.host if request.client else "?"
        return {"result": site.actions.do(action, _id(request), address=address)}

    return do


def _job_log(site: Site, request: Request) -> Any:
    ask, job = _ask(request), _id(request)
    number = job.rpartition("/")[2] if "/" in job else "0"
    return site.jobs.log(job, ask.whole("task", int(number) if number.isdigit() else 0), ask.whole("from", 0))


def _file(site: Site, request: Request) -> Response:
    def read(_: Request) -> Any:
        entry = site.entry(_id(request))
        return site.media_file(entry.id, _ask(request).text("path"))

    try:
        content, media_type, shown = read(request)
    except (FileNotFoundError, PermissionError, OSError, ValueError):
        return _failure(404, "no such file among the run's media")
    headers = {"cache-control": "no-store", "content-security-policy": FILE_CSP}
    if not shown:
        headers["content-disposition"] = "attachment"
    return Response(content, 200, headers, media_type)


def _login(site: Site, request: Request) -> Response:
    """Keeps the token in a cookie, so that what cannot send a header (a picture, an event stream) is let through."""
    response = _response(200, b'{"result":"welcome"}')
    token = request.headers.get(TOKEN_HEADER, "")
    response.set_cookie(site.access.cookie, token, httponly=True, samesite="strict", path="/")
    return response


def _events(site: Site) -> Callable[[Request], Any]:
    async def events(request: Request) -> Response:
        names = [name for name in request.query_params.get("runs", "").split(",") if name]
        entries = await asyncio.to_thread(lambda: [site.runs.find(name) for name in names[:MAX_WATCHED]])
        stream = site.live.events(
            [entry for entry in entries if entry is not None], table=request.query_params.get("table") == "1"
        )
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(stream, 200, headers, "text/event-stream")

    return events


def _asset(site: Site, request: Request) -> Response:
    try:
        asset = site.assets.find(str(request.path_params["name"]))
    except (OSError, ValueError):
        return _failure(404, "no such file of the page")
    return _send(request, asset, _YEAR)


def _send(request: Request, asset: Asset, cache: str) -> Response:
    headers = {"cache-control": cache, "vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.packed, 200, {**headers, "content-encoding": "gzip"}, asset.media_type)
    return Response(asset.content, 200, headers, asset.media_type)
