"""Reads below one folder and nowhere else: no path leads out of it, by `..` or by a link.

Each part of a path is opened by itself, relative to the folder before it, and a link is never followed; so there
is no moment at which somebody could swap one in. What is no plain file (a pipe would block, a device is endless)
is refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Outside(OSError):
    """A path that leads out of the folder, or to what is no plain file."""


@contextmanager
def folder_below(root: Path, *parts: str) -> Iterator[int]:
    """Gives a descriptor of a folder.

    Raises:
        OSError: it is not there or may not be read; `Outside` where it lies elsewhere.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            _check_part(part)
            inner = _opened(part, _FOLDER, descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def open_below(root: Path, *parts: str) -> BinaryIO:
    """Returns a plain file, open for reading.

    Raises:
        OSError: it is not there or may not be read; `Outside` where it lies elsewhere or is no plain file.
    """
    *folders, name = parts
    _check_part(name)
    with folder_below(root, *folders) as folder:
        descriptor = _opened(name, _FILE, folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Outside(f"{name} is no plain file")
    return os.fdopen(descriptor, "rb")


def read_below(root: Path, *parts: str, limit: int) -> bytes:
    """Returns the content of a file of at most `limit` bytes.

    Raises:
        OSError: it cannot be read, or is larger.
    """
    with open_below(root, *parts) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(f"{parts[-1]} is larger than {limit:,} bytes")
    return content


def list_below(root: Path, *parts: str) -> list[tuple[str, os.stat_result]]:
    """Returns names and stats in a folder, sorted by name; [] where there is none. Links are passed over.

    Raises:
        OSError: it may not be read.
    """
    found = []
    try:
        with folder_below(root, *parts) as folder:
            for name in sorted(os.listdir(folder)):
                try:
                    info = os.stat(name, dir_fd=folder, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not stat.S_ISLNK(info.st_mode):
                    found.append((name, info))
    except FileNotFoundError:
        return []
    return found


def _check_part(part: str) -> None:
    if part in ("", ".", "..") or "/" in part or "\0" in part:
        raise Outside(f"{part!r} is no name of a file")


def _opened(name: str, flags: int, folder: int) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError:
        # O_NOFOLLOW says ELOOP for a file and ENOTDIR for a folder; a person is told what it is.
        if _is_link(name, folder):
            raise Outside(f"{name} is a link; links are not followed") from None
        raise


def _is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False
