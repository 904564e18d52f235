"""Who may ask, and the headers of every answer.

A page of somebody else's in the same browser can send requests to this server. So the Host must be one that this
server answers to (a name that was made to point here is none), the Origin, where one is sent, its own; and what
changes something needs a token that only the address printed at the start has.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import socket
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

import psutil
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_HEADER = "x-headway-token"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
FILE_CSP = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""Of a run's own files: a picture that is a program shows and runs nothing."""
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Access:
    """What the guard goes by."""

    token: str
    hosts: frozenset[str]
    """Names and addresses that this server answers to, in small letters."""
    token_needed: bool
    """Whether looking needs the token, too."""

    @property
    def cookie(self) -> str:
        """Returns the name of the cookie that holds the token: a browser sends what one port set to all of
        them, so each server has its own.
        """
        return f"headway_{hashlib.sha256(self.token.encode()).hexdigest()[:12]}"


def access_for(host: str, token: str) -> Access:
    """Returns who may ask a server that is bound to an address."""
    if is_loopback(host):
        return Access(token, _LOOPBACK | {host.lower()}, token_needed=False)
    names = {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower(), *_LOOPBACK}
    if is_any(host):
        names |= {one.address.partition("%")[0].lower() for found in psutil.net_if_addrs().values() for one in found}
    return Access(token, frozenset(names), token_needed=True)


def is_loopback(host: str) -> bool:
    """Returns whether an address is reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_any(host: str) -> bool:
    """Returns whether an address stands for all that this machine has."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


class Guard:
    """Refuses who may not ask, and gives every answer its headers.

    Args:
        app: what answers.
        access: what it goes by.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                present = {name.lower() for name, _ in headers}
                more = [(b"content-security-policy", CSP.encode()), *_HEADERS]
                message["headers"] = headers + [pair for pair in more if pair[0] not in present]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self.app(scope, receive, send_with_headers)
        else:
            await _answer(send_with_headers, *refusal)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Returns the status and the reason why a request is not answered; None where it is."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if _host_name(host) not in self.access.hosts:
            return 403, f"Host: {host[:100]!r} is not this server's; open it by the address that it printed"
        origin = headers.get("origin")
        if origin is not None and not _is_own(origin, host):
            return 403, f"Origin: {origin[:100]!r} is another page's"
        path, method = scope["path"], scope["method"]
        if method not in ("GET", "HEAD", "POST"):
            return 400, f"{method[:20]}: is not understood here"
        if not path.startswith("/api/"):
            return None if method != "POST" else (404, "there is nothing to change here")
        if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return 403, "the request comes from another page"
        given = headers.get(TOKEN_HEADER, "")
        if method == "POST" and not self._is_token(given):
            return 401, "this needs the token: open the page by the address that `headway dash` printed"
        if (
            self.access.token_needed
            and not self._is_token(given)
            and not self._is_token(_cookie(headers, self.access.cookie))
        ):
            return 401, "this needs the token: open the page by the address that `headway dash` printed"
        return None

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.access.token.encode())


def _host_name(host: str) -> str:
    """Returns a Host header without its port, in small letters; a tunnel's port is not this server's."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_own(origin: str, host: str) -> bool:
    """Returns whether an Origin is the page that this server gave: the same name and port as the Host."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(host) and parts.netloc.lower() == host.lower()


def _cookie(headers: dict[str, str], name: str) -> str:
    try:
        found: SimpleCookie = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return found[name].value if name in found else ""


async def _answer(send: Any, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
