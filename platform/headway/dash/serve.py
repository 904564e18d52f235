"""Serves the page: binds an address, says where it is, and opens at once; the folder is read behind it."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from headway.config.errors import UserError
from headway.dash.app import Site, build_app
from headway.dash.export import export
from headway.dash.guard import access_for, is_any, is_loopback
from headway.dash.offline_wandb import OfflineRuns

PORT = 6007
_TRIES = 20
CACHE = ".dash"


@dataclass(frozen=True)
class Address:
    """Where a server answers."""

    host: str
    port: int
    token: str

    @property
    def url(self) -> str:
        """Returns what a browser opens; what follows # stays in the browser, and the page sends it as a header.

        An address that stands for all of this machine's, such as 0.0.0.0, is nowhere to go to from elsewhere: the
        machine's name is.
        """
        host = socket.gethostname() if is_any(self.host) else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/#token={self.token}"

    def tunnel(self, environment: dict[str, str]) -> str | None:
        """Returns the command that brings it to the machine that somebody sits at; None where this is that machine."""
        connection = environment.get("SSH_CONNECTION", "").split()
        if len(connection) < 3 or not is_loopback(self.host):
            return None
        return f"ssh -N -L {self.port}:{self.host}:{self.port} {getpass.getuser()}@{connection[2]}"


class _Server(uvicorn.Server):
    """Lets the viewers of events go when it ends."""

    def __init__(self, config: uvicorn.Config, site: Site) -> None:
        super().__init__(config)
        self.site = site

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends."""
        self.site.live.close()
        self.site.sweeps.close()
        await super().shutdown(sockets)
        self.site.curves.close()


def serve(
    root: Path,
    *,
    host: str,
    port: int | None,
    read_only: bool,
    open_browser: bool,
    announce: Callable[[Address], None],
    wandb: Path | None = None,
) -> None:
    """Serves a runs folder until it is stopped.

    Args:
        root: the folder of run folders.
        host: address to bind.
        port: the port; one that is free when None.
        read_only: refuse to change anything.
        open_browser: whether to open it in a browser.
        announce: is told where it is.
        wandb: a folder of runs that Weights & Biases wrote offline.

    Raises:
        UserError: the folder is not there, or the address cannot be bound.
    """
    root = check_folder(root)
    offline = None if wandb is None else OfflineRuns(wandb)
    listener = _listen(host, port)
    token = secrets.token_urlsafe(32)
    address = Address(host, listener.getsockname()[1], token)
    site = Site.of(
        root,
        cache=cache_folder(root),
        access=access_for(host, token),
        host=socket.gethostname(),
        read_only=read_only,
        offline=offline,
    )
    threading.Thread(target=site.runs.refresh, daemon=True, name="first look").start()
    announce(address)
    if open_browser:
        threading.Thread(target=webbrowser.open, args=(address.url,), daemon=True, name="browser").start()
    config = uvicorn.Config(
        build_app(site),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="off",
        loop="asyncio",
        http="h11",
        timeout_graceful_shutdown=2,
    )
    with listener:
        _Server(config, site).run(sockets=[listener])


def write_export(root: Path, folder: Path, *, wandb: Path | None, progress: Callable[[str], None]) -> int:
    """Writes the dashboard of a runs folder as files; returns how many runs are in it.

    Raises:
        UserError: a folder is not there, not empty, or cannot be written.
    """
    root = check_folder(root)
    offline = None if wandb is None else OfflineRuns(wandb)
    access = access_for("127.0.0.1", secrets.token_urlsafe(32))
    site = Site.of(root, cache=cache_folder(root), access=access, host=socket.gethostname(), offline=offline)
    try:
        return export(site, folder, progress=progress)
    finally:
        site.sweeps.close()
        site.curves.close()


def check_folder(root: Path) -> Path:
    """Returns a runs folder, absolute and without links.

    Raises:
        UserError: there is none.
    """
    if not root.is_dir():
        raise UserError(f"--runs: {root} is no folder; name the one that `headway fit` writes to")
    return root.resolve()


def cache_folder(root: Path) -> Path | None:
    """Returns where this server may keep what it works out; the user's own cache where the runs are not theirs."""
    if os.access(root, os.W_OK):
        return root / CACHE / "columns"
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "headway" / "dash" / "columns"


def _listen(host: str, port: int | None) -> socket.socket:
    """Returns a bound socket.

    Raises:
        UserError: the address is not this machine's, or the port is taken.
    """
    if port is not None and not 0 <= port < 1 << 16:
        raise UserError(f"--port: {port} should be from 0 to 65535; leave it out to have a free one")
    wanted = [port] if port is not None else [*range(PORT, PORT + _TRIES), 0]
    problem: OSError | None = None
    for number in wanted:
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
            listener = socket.socket(family, kind)
        except OSError as error:
            raise UserError(f"--host: {host} is no address ({error.strerror or error})") from None
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(512)
        except OSError as error:
            listener.close()
            problem = error
            continue
        return listener
    assert problem is not None
    what = f"--port: {port}" if port is not None else f"--host: {host}"
    raise UserError(f"{what}: cannot be bound ({problem.strerror}); choose another")
