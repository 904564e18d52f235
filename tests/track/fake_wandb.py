"""A fake W&B server on loopback that the real SDK takes for W&B's: it keeps what arrives, and misbehaves when told to.

It answers the GraphQL operations that the SDK sends, the file stream (`POST /files/ENTITY/PROJECT/RUN/file_stream`) and
the uploads (`PUT`) that those operations give addresses for. Lines of a stream are kept by their offset, as W&B does:
what is sent twice is there once.
"""

# ruff: noqa: N802 - methods are named after the operations that they answer

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

KEY = "0123456789" * 4
_THEN = "2026-01-01T00:00:00"
Fault = Literal["sluggish", "silent", "drop", "drop_answer"] | int
"""An HTTP status; or to be slow, to never answer, to hang up at once, or to do it and hang up without an answer."""


@dataclass
class Run:
    """What arrived of one run."""

    entity: str
    project: str
    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    """Group, job type, tags and so on, by the names of GraphQL's variables; the newest of each."""
    streams: dict[str, dict[int, str]] = field(default_factory=dict)
    """Lines by offset, by file: history, events (of the system monitor), summary, output."""
    files: dict[str, bytes] = field(default_factory=dict)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    resumes: int = 0
    """How often somebody asked for it when it was there already."""
    lines_received: int = 0
    """Lines of history that came, those that came twice counted twice."""
    exit_code: int | None = None

    @property
    def config(self) -> dict[str, Any]:
        """Returns the config as the user set it."""
        config = json.loads(self.fields.get("config") or "{}")
        return {name: entry["value"] for name, entry in config.items() if name != "_wandb"}

    @property
    def history(self) -> list[dict[str, Any]]:
        """Returns the rows, in the order in which W&B would show them."""
        lines = self.streams.get("wandb-history.jsonl", {})
        return [json.loads(lines[offset]) for offset in sorted(lines)]

    @property
    def events(self) -> list[dict[str, Any]]:
        """Returns the system monitor's rows."""
        lines = self.streams.get("wandb-events.jsonl", {})
        return [json.loads(lines[offset]) for offset in sorted(lines)]

    @property
    def summary(self) -> dict[str, Any]:
        """Returns the newest summary."""
        lines = self.streams.get("wandb-summary.json", {})
        streamed = json.loads(lines[max(lines)]) if lines else {}
        return streamed or json.loads(self.files.get("wandb-summary.json", b"{}"))

    def steps_of(self, metric: str) -> list[int]:
        """Returns at which steps a metric was recorded."""
        return [row["step"] for row in self.history if metric in row]


@dataclass
class Artifact:
    """What arrived of one version of an artifact."""

    id: str
    name: str
    type: str
    run: str
    aliases: list[str]
    metadata: dict[str, Any]
    digest: str
    files: dict[str, bytes] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    committed: bool = False


@dataclass
class _Misbehaviour:
    fault: Fault
    where: str
    times: int | None
    delay_s: float


class FakeWandb:
    """The server. Use it as a context, or `start` and `stop` it; it comes back at the same address."""

    def __init__(self, entity: str = "local") -> None:
        self.entity = entity
        self.runs: dict[str, Run] = {}
        self.artifacts: list[Artifact] = []
        self.views: list[dict[str, Any]] = []
        """Saved workspaces and reports."""
        self.projects: set[str] = set()
        """Those that were made without a run."""
        self.operations: list[str] = []
        """Names of the GraphQL operations, and `PUT` and `file_stream`, in the order in which they came."""
        self.unknown: list[str] = []
        """Operations that this fake has no answer for."""
        self.lock = threading.Lock()
        self._misbehaviours: list[_Misbehaviour] = []
        self._server: _Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Returns its address."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """Returns what makes the SDK of a process talk to it."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": KEY,
            "WANDB_ENTITY": self.entity,
            "WANDB_MODE": "online",
            "WANDB_ERROR_REPORTING": "false",
        }

    def run(self, name: str) -> Run:
        """Returns the run of that id, whatever its project."""
        (found,) = [run for run in self.runs.values() if run.name == name]
        return found

    def misbehave(self, fault: Fault, *, where: str = "", times: int | None = None, delay_s: float = 0.5) -> None:
        """Has requests go wrong from now on.

        Args:
            fault: how.
            where: only requests whose path, or whose operation, contains this.
            times: so many requests; all, until `behave`, when absent.
            delay_s: how slow.
        """
        with self.lock:
            self._misbehaviours.append(_Misbehaviour(fault, where, times, delay_s))

    def behave(self) -> None:
        """Ends all misbehaviour."""
        with self.lock:
            self._misbehaviours.clear()

    def start(self) -> None:
        """Listens, at the address that it had before."""
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Dies: nobody listens, and open connections are cut."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.cut()
            self._server = None

    def __enter__(self) -> FakeWandb:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _fault_of(self, what: str) -> _Misbehaviour | None:
        with self.lock:
            for entry in self._misbehaviours:
                if entry.where in what and entry.times != 0:
                    if entry.times is not None:
                        entry.times -= 1
                    return entry
        return None

    # ---- what is asked ---------------------------------------------------------------------------------

    def answer(self, operation: str, query: str, given: dict[str, Any]) -> dict[str, Any]:
        """Returns the data that answers a GraphQL operation."""
        method = getattr(self, f"_on_{operation}", None)
        if method is not None:
            return method(given)
        if "__type(" in query or "__schema" in query:
            return self._introspection(query)
        with self.lock:
            self.unknown.append(operation)
        return {}

    def _introspection(self, query: str) -> dict[str, Any]:
        nothing = {"fields": [], "inputFields": [], "enumValues": []}
        return {name: {"name": name, **nothing} for name in re.findall(r"(\w+):\s*__type", query)} or {"__type": None}

    def _viewer(self) -> dict[str, Any]:
        return {
            "id": "VXNlcjox",
            "entity": self.entity,
            "username": self.entity,
            "name": self.entity,
            "email": "nobody@localhost",
            "admin": False,
            "flags": "{}",
            "teams": {"edges": []},
            "defaultEntity": {"name": self.entity, "id": "RQ=="},
            "apiKeys": {"edges": []},
        }

    def _on_Viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": self._viewer()}

    def _on_ServerFeaturesQuery(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _on_OrganizationCoreWeaveOrganizationID(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    # ---- runs --------------------------------------------------------------------------------------------

    def _project(self, name: str) -> dict[str, Any]:
        return {"id": "UHJvag==", "name": name, "entity": {"id": "RW50", "name": self.entity}}

    def _on_RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            run = self.runs.get(f"{given['entity'] or self.entity}/{given['project']}/{given['name']}")
            if run is None:
                return {"model": None}
            run.resumes += 1
            return {"model": {**self._project(run.project), "bucket": self._resumable(run)}}

    def _resumable(self, run: Run) -> dict[str, Any]:
        def stream(name: str) -> dict[int, str]:
            return run.streams.get(name, {})

        def tail(lines: dict[int, str]) -> str:
            return json.dumps([lines[max(lines)]] if lines else [])

        history, events = stream("wandb-history.jsonl"), stream("wandb-events.jsonl")
        return {
            "id": _id("Run", run.name),
            "name": run.name,
            "displayName": run.fields.get("displayName") or run.name,
            "summaryMetrics": json.dumps(run.summary),
            "logLineCount": len(stream("output.log")),
            "historyLineCount": len(history),
            "eventsLineCount": len(events),
            "historyTail": tail(history),
            "eventsTail": tail(events),
            "config": run.fields.get("config") or "{}",
            "tags": run.fields.get("tags") or [],
            "notes": run.fields.get("notes"),
            "wandbConfig": json.dumps({"t": 1}),
        }

    def _on_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        name, project = given["name"], given.get("project") or "uncategorized"
        entity = given.get("entity") or self.entity
        with self.lock:
            new = f"{entity}/{project}/{name}" not in self.runs
            run = self.runs.setdefault(f"{entity}/{project}/{name}", Run(entity, project, name))
            config = json.loads(run.fields.get("config") or "{}") | json.loads(given.get("config") or "{}")
            run.fields |= {key: value for key, value in given.items() if value is not None}
            run.fields["config"] = json.dumps(config)
            bucket = {
                "id": _id("Run", name),
                "name": name,
                "displayName": run.fields.get("displayName") or name,
                "description": "",
                "config": run.fields["config"],
                "sweepName": run.fields.get("sweep"),
                "historyLineCount": len(run.streams.get("wandb-history.jsonl", {})),
                "project": self._project(project),
            }
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def _on_CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        key = f"{given['entity']}/{given['project']}/{given['run']}"
        files = [{"name": name, "uploadUrl": f"{self.url}/storage/run/{key}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": _id("Run", given["run"]), "uploadHeaders": [], "files": files}}

    def _on_NotifyScriptableRunAlert(self, given: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            self.runs[f"{given['entityName']}/{given['projectName']}/{given['runName']}"].alerts.append(given)
        return {"notifyScriptableRunAlert": {"success": True}}

    def stream(self, key: str, sent: dict[str, Any]) -> None:
        """Takes a piece of a run's file stream."""
        with self.lock:
            run = self.runs.setdefault(key, Run(*key.split("/")))
            for name, chunk in (sent.get("files") or {}).items():
                lines = run.streams.setdefault(name, {})
                lines |= {chunk["offset"] + index: line for index, line in enumerate(chunk["content"])}
                if name == "wandb-history.jsonl":
                    run.lines_received += len(chunk["content"])
            if sent.get("complete") is not None:
                run.exit_code = sent.get("exitcode")

    # ---- workspaces and reports --------------------------------------------------------------------------

    def _on_UpsertView2(self, given: dict[str, Any]) -> dict[str, Any]:
        return self._on_upsertView(given)

    def _on_upsertView(self, given: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            self.views.append({**given, "spec": json.loads(given["spec"])})
            view = {
                "id": _id("View", str(len(self.views))),
                "name": given["name"],
                "displayName": given["displayName"],
                "description": given["description"],
                "spec": given["spec"],
                "type": given["type"],
                "project": self._project(given["projectName"]) | {"entityName": given["entityName"]},
                "user": {
                    "id": "VXNlcjox",
                    "username": self.entity,
                    "name": self.entity,
                    "photoUrl": None,
                    "admin": False,
                },
                "createdAt": _THEN,
                "updatedAt": _THEN,
                "viewCount": 0,
                "starCount": 0,
            }
        return {"upsertView": {"view": view, "inserted": True}}

    def _on_GetProjects(self, given: dict[str, Any]) -> dict[str, Any]:
        names = sorted({run.project for run in self.runs.values()} | self.projects)
        nodes = [
            {**self._project(name), "entityName": self.entity, "createdAt": _THEN, "isBenchmark": False, "user": None}
            for name in names
        ]
        edges = [{"node": node, "cursor": node["name"]} for node in nodes]
        return {"models": {"pageInfo": {"hasNextPage": False, "endCursor": None}, "edges": edges}}

    def _on_CreateProject(self, given: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            self.projects.add(given["input"]["name"])
        made = self._project(given["input"]["name"]) | {
            "entityName": self.entity,
            "createdAt": _THEN,
            "isBenchmark": False,
            "user": None,
        }
        return {"upsertModel": {"project": made, "model": made, "inserted": True}}

    # ---- artifacts ---------------------------------------------------------------------------------------

    def _on_ArtifactType(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def _artifact(self, id: str) -> Artifact:
        (found,) = [artifact for artifact in self.artifacts if artifact.id == id]
        return found

    def _on_CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        asked = given["input"]
        with self.lock:
            for known in self.artifacts:
                # W&B knows a version by its content, and moves the aliases.
                if known.committed and (known.name, known.digest) == (asked["artifactCollectionName"], asked["digest"]):
                    known.aliases = [entry["alias"] for entry in asked["aliases"] or []]
                    sequence = {
                        "id": _id("Sequence", known.name),
                        "latestArtifact": {"id": known.id, "versionIndex": 0},
                    }
                    there = {"id": known.id, "state": "COMMITTED", "artifactSequence": sequence}
                    return {"createArtifact": {"artifact": there}}
            artifact = Artifact(
                digest=asked["digest"],
                id=_id("Artifact", str(len(self.artifacts))),
                name=asked["artifactCollectionName"],
                type=asked["artifactTypeName"],
                run=asked["runName"],
                aliases=[entry["alias"] for entry in asked["aliases"] or []],
                metadata=json.loads(asked["metadata"] or "{}"),
            )
            self.artifacts.append(artifact)
        sequence = {"id": _id("Sequence", artifact.name), "latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": artifact.id, "state": "PENDING", "artifactSequence": sequence}}}

    def _on_CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        file = {
            "id": "Rg==",
            "name": given["name"],
            "displayName": given["name"],
            "uploadUrl": f"{self.url}/storage/manifest/{given['artifactID']}",
            "uploadHeaders": [],
        }
        return {
            "createArtifactManifest": {"artifactManifest": {"id": _id("Manifest", given["artifactID"]), "file": file}}
        }

    def _on_UpdateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        manifest = base64.b64decode(given["artifactManifestID"]).decode().split(":", 1)[1]
        made = self._on_CreateArtifactManifest({"name": "wandb_manifest.json", "artifactID": manifest})
        return {"updateArtifactManifest": made["createArtifactManifest"]}

    def _on_CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        nodes = [
            {
                "id": "Rg==",
                "name": asked["name"],
                "displayName": asked["name"],
                "storagePath": asked["name"],
                "uploadUrl": f"{self.url}/storage/artifact/{asked['artifactID']}/{asked['name']}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": asked["artifactID"]},
            }
            for asked in given["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _on_CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            artifact = self._artifact(given["artifactID"])
            for other in self.artifacts:
                if other.name == artifact.name and other is not artifact:
                    other.aliases = [alias for alias in other.aliases if alias not in artifact.aliases]
            artifact.committed = True
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": "0"}}}

    def put(self, path: str, data: bytes) -> None:
        """Takes an upload."""
        kind, rest = path.removeprefix("/storage/").split("/", 1)
        with self.lock:
            if kind == "run":
                entity, project, run, name = rest.split("/", 3)
                self.runs[f"{entity}/{project}/{run}"].files[name] = data
            elif kind == "artifact":
                version, name = rest.split("/", 1)
                self._artifact(version).files[name] = data
            elif kind == "manifest":
                self._artifact(rest).manifest = json.loads(data)


def _id(kind: str, name: str) -> str:
    return base64.b64encode(f"{kind}:{name}".encode()).decode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], fake: FakeWandb) -> None:
        self.fake = fake
        self.connections: set[socket.socket] = set()
        self.dead = threading.Event()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of clients that are gone."""

    def cut(self) -> None:
        self.dead.set()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        with self._behaving(self.path) as gone:
            if not gone:
                self._send({"ok": True})

    def do_PUT(self) -> None:
        data = self._body()
        with self._behaving(f"PUT {self.path}") as gone:
            if not gone:
                self.server.fake.put(unquote(urlsplit(self.path).path), data)
                self._note("PUT")
                self._send({})

    def do_POST(self) -> None:
        data = self._body()
        found = re.match(r"/files/([^/]+/[^/]+/[^/]+)/file_stream", self.path)
        asked = json.loads(data) if self.path.startswith("/graphql") else {}
        query = asked.get("query", "")
        operation = asked.get("operationName") or (re.findall(r"(?:query|mutation)\s+(\w+)", query) or [""])[0]
        with self._behaving(f"POST {self.path} {operation}") as gone:
            if gone:
                return
            if found:
                self.server.fake.stream(unquote(found[1]), json.loads(data))
                self._note("file_stream")
                self._send({"exitcode": None, "limits": {}})
            elif not asked:
                self._send({})  # the SDK's report of how it fares
            else:
                answer = self.server.fake.answer(operation, query, asked.get("variables") or {})
                self._note(operation)
                self._send({"data": answer})

    def _note(self, what: str) -> None:
        with self.server.fake.lock:
            self.server.fake.operations.append(what)

    @contextlib.contextmanager
    def _behaving(self, what: str) -> Iterator[bool]:
        """Misbehaves as told; yields whether that was all of the answer."""
        entry = self.server.fake._fault_of(what)
        fault = entry.fault if entry else None
        self._mute = fault == "drop_answer"
        if entry and fault == "sluggish":
            self.server.dead.wait(entry.delay_s)
        if fault == "silent":
            self.server.dead.wait(600)
        if fault in ("silent", "drop"):
            self.close_connection = True
            yield True
        elif isinstance(fault, int):
            self._send({"errors": [{"message": f"told to answer {fault}"}]}, status=fault)
            yield True
        else:
            yield False

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
        return gzip.decompress(data) if self.headers.get("content-encoding") == "gzip" else data

    def _send(self, value: dict[str, Any], status: int = 200) -> None:
        if self._mute:
            self.close_connection = True
            return
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def deaf_port() -> Iterator[str]:
    """Gives the address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def until(condition: Any, timeout_s: float = 30.0) -> None:
    """Waits for something that W&B's own process does on its own time."""
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
