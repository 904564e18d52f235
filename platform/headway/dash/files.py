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
    with folder_below(root, *folders) as folder:
        return os.fdopen(_open_in(folder, name), "rb")


def read_below(root: Path, *parts: str, limit: int) -> bytes:
    """Returns the content of a file of at most `limit` bytes.

    Raises:
        OSError: it cannot be read, or is larger.
    """
    *folders, name = parts
    with folder_below(root, *folders) as folder:
        return read_in(folder, name, limit=limit)


def read_in(folder: int, name: str, *, limit: int) -> bytes:
    """Returns the content of a file of at most `limit` bytes in an open folder.

    Raises:
        OSError: it cannot be read, or is larger.
    """
    descriptor = _open_in(folder, name)
    try:
        size = os.fstat(descriptor).st_size
        if size > limit:
            raise OSError(f"{name} is larger than {limit:,} bytes")
        return os.pread(descriptor, size, 0)
    finally:
        os.close(descriptor)


def ends_in(folder: int, name: str, *, length: int) -> bytes:
    """Returns the first and the last so many bytes of a file in an open folder, with a line break between them.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = _open_in(folder, name)
    try:
        size = os.fstat(descriptor).st_size
        content = os.pread(descriptor, min(size, length), 0)
        return content if size <= length else content + b"\n" + os.pread(descriptor, length, max(length, size - length))
    finally:
        os.close(descriptor)


def list_below(root: Path, *parts: str) -> list[tuple[str, os.stat_result]]:
    """Returns names and stats in a folder, sorted by name; [] where there is none. Links are passed over.

    Raises:
        OSError: it may not be read.
    """
    found = []
    try:
        with folder_below(root, *parts) as folder:
            for name in sorted(names_in(folder)):
                try:
                    info = os.stat(name, dir_fd=folder, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not stat.S_ISLNK(info.st_mode):
                    found.append((name, info))
    except FileNotFoundError:
        return []
    return found


def names_in(folder: int) -> list[str]:
    """Returns the names in an open folder."""
    with os.scandir(folder) as found:
        return [item.name for item in found]


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


def _open_in(folder: int, name: str) -> int:
    """Returns a descriptor of a plain file in an open folder."""
    _check_part(name)
    descriptor = _opened(name, _FILE, folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Outside(f"{name} is no plain file")
    return descriptor


def _is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False
