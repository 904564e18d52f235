"""A fake Kubernetes API server: the few requests that a launcher makes, over real HTTP, in memory.

It keeps objects, refuses a second one of a name (409), filters lists by label, gives pods' logs, and does as it is
told for the next requests: answer with an error, or drop the connection.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "token-of-the-fake"


class FakeCluster:
    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.logs: dict[str, str] = {}
        self.next_answers: list[int | str] = []
        """What the next requests get: a status, or "drop"."""
        self.requests: list[tuple[str, str]] = []
        self.address = ""

    def kinds(self) -> list[str]:
        return sorted(str(tree["kind"]) for tree in self.objects.values())

    def kubeconfig(self, path: Path, *, token: str = TOKEN) -> Path:
        """Writes what kubectl would read."""
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "fake",
                    "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me"}}],
                    "clusters": [{"name": "fake", "cluster": {"server": self.address}}],
                    "users": [{"name": "me", "user": {"token": token}}],
                }
            )
        )
        return path


@contextmanager
def fake_cluster() -> Iterator[FakeCluster]:
    cluster = FakeCluster()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, code: int, body: Any, **headers: str) -> None:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(raw)

        def _refuse(self, code: int, message: str) -> None:
            more = {"Retry_After": "0"} if code == 429 else {}
            self._answer(code, {"kind": "Status", "code": code, "message": message}, **more)

        def _handle(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            url = urlsplit(self.path)
            cluster.requests.append((self.command, url.path))
            if cluster.next_answers:
                answer = cluster.next_answers.pop(0)
                if answer == "drop":
                    self.close_connection = True
                    self.connection.close()
                    return
                if answer != 200:
                    self._refuse(int(answer), "as the test wants it")
                    return
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._refuse(401, "Unauthorized")
                return
            found = re.fullmatch(
                r"(?:/api/v1|/apis/[^/]+/[^/]+)/namespaces/[^/]+/([^/]+)(?:/([^/]+))?(/log)?", url.path
            )
            if found is None:
                self._refuse(404, "the server could not find the requested resource")
                return
            plural, name, log = found.groups()
            if log:
                self._answer(200, cluster.logs.get(str(name), "").encode())
            elif self.command == "POST":
                self._create(plural, body)
            elif self.command == "GET" and name is None:
                selector = parse_qs(url.query).get("labelSelector", [""])[0]
                wanted = re.fullmatch(r"(\S+) in \((.*)\)", selector)
                assert wanted is not None
                items = [
                    tree
                    for (kind, _), tree in cluster.objects.items()
                    if kind == plural and tree["metadata"]["labels"].get(wanted[1]) in wanted[2].split(",")
                ]
                self._answer(200, {"kind": "List", "metadata": {}, "items": items})
            elif (plural, str(name)) not in cluster.objects:
                self._refuse(404, f'{plural} "{name}" not found')
            elif self.command == "DELETE":
                self._answer(200, cluster.objects.pop((plural, str(name))))
            else:
                self._answer(200, cluster.objects[plural, str(name)])

        def _create(self, plural: str, tree: dict[str, Any]) -> None:
            key = plural, tree["metadata"]["name"]
            if key in cluster.objects:
                self._refuse(409, f'{plural} "{key[1]}" already exists')
                return
            tree["metadata"] |= {"uid": f"uid-{len(cluster.objects)}", "creationTimestamp": "2026-11-22T10:00:00Z"}
            cluster.objects[key] = tree
            self._answer(201, tree)

        do_GET = do_POST = do_DELETE = _handle  # noqa: N815 - the names that http.server calls

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    cluster.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
