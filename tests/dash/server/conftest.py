"""A runs folder with one of everything, and a real server over it."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import pytest


@dataclass
class Answer:
    """What a server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A running `headway dash`."""

    host: str
    port: int
    token: str
    url: str
    process: subprocess.Popen[str]

    def ask(self, path: str, *, method: str = "GET", **headers: str) -> Answer:
        """Sends one request, with just these headers besides Host (`Host=""` sends none)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in ({"Host": f"127.0.0.1:{self.port}"} | sent).items():
                if value:
                    connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """Returns the JSON of an answer that is well."""
        answer = self.ask(path)
        assert answer.status == 200, (path, answer.status, answer.body[:300])
        return answer.json()

    def post(self, path: str, **headers: str) -> Answer:
        return self.ask(path, method="POST", **({"X_Headway_Token": self.token} | headers))

    @contextmanager
    def events(self, query: str, *, timeout: float = 60) -> Iterator[Iterator[tuple[str, Any]]]:
        """Gives the events of a stream as they come."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.request("GET", f"/api/events?{query}")
        response = connection.getresponse()
        assert response.status == 200

        def read() -> Iterator[tuple[str, Any]]:
            name = ""
            while line := response.readline():
                if line.startswith(b"event: "):
                    name = line[7:].strip().decode()
                elif line.startswith(b"data: "):
                    yield name, json.loads(line[6:])

        try:
            yield read()
        finally:
            connection.close()


@contextmanager
def serving(runs: Path, *options: str, prefix: Sequence[str] = ()) -> Iterator[Server]:
    """Gives a server over a runs folder; `prefix` is a command that starts it."""
    command = [sys.executable, "-m", "headway", "dash", "--runs", str(runs), "--json", "--no-open", *options]
    process = subprocess.Popen([*prefix, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            _, errors = process.communicate(timeout=20)
            raise AssertionError(f"the server did not start: {errors}")
        told = json.loads(line)
        yield Server(told["host"], told["port"], told["token"], told["url"], process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert "Traceback" not in errors, errors
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture(scope="session")
def made(making: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Returns a runs folder with one of everything. Shared: nobody changes it."""
    runs = tmp_path_factory.mktemp("made") / "runs"
    runs.mkdir()
    making.make_all(runs)
    yield runs
    (runs / "not-mine").chmod(0o700)


@pytest.fixture(scope="session")
def server(made: Path) -> Iterator[Server]:
    """Returns a server over the folder with one of everything."""
    with serving(made) as running:
        yield running


@pytest.fixture
def serve() -> Callable[..., Any]:
    """Returns a function that gives a server over a folder, as a context."""
    return serving


@pytest.fixture
def quoted() -> Callable[[str], str]:
    """Returns a function that makes an id a part of a path."""
    return lambda name: quote(name, safe="")
