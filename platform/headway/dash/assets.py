"""The page itself, from the package: its files, packed once, under an address that changes when they do."""

from __future__ import annotations

import gzip
import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

from headway.dash.files import read_below

FOLDER = Path(__file__).parent / "assets"
_MAX_BYTES = 16 << 20
_TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".woff2": "font/woff2",
    ".json": "application/json", ".txt": "text/plain; charset=utf-8",
}  # fmt: skip


@dataclass(frozen=True)
class Asset:
    """One file of the page."""

    content: bytes
    packed: bytes
    """The same, gzipped."""
    media_type: str


class Assets:
    """The page's files.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[tuple[int, int, str], Asset]] = {}

    def version(self) -> str:
        """Returns a name for the state of all files; another when one of them changes."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                info = path.stat()
                digest.update(f"{path.relative_to(self.folder)} {info.st_mtime_ns} {info.st_size}\n".encode())
        return digest.hexdigest()[:12]

    def page(self) -> Asset:
        """Returns index.html, which names the version of what it loads."""
        return self._asset("index.html", version=self.version())

    def find(self, name: str) -> Asset:
        """Returns a file.

        Raises:
            OSError: there is none of that name.
        """
        return self._asset(name, version="")

    def _asset(self, name: str, *, version: str) -> Asset:
        parts = name.split("/")
        info = self.folder.joinpath(*parts).stat() if ".." not in parts else None
        stamp = (info.st_mtime_ns, info.st_size, version) if info else (0, 0, version)
        known = self._kept.get(name)
        if known is not None and known[0] == stamp:
            return known[1]
        content = read_below(self.folder, *parts, limit=_MAX_BYTES)
        if version:
            content = content.replace(b"VERSION", version.encode())
        media_type = _TYPES.get(Path(name).suffix, "application/octet-stream")
        asset = Asset(content, gzip.compress(content, 6, mtime=0), media_type)
        with self._lock:
            self._kept[name] = (stamp, asset)
        return asset
