"""Where data sets are kept, which ones headway knows, and how the ones on the network get there.

A downloaded file is written beside its target, checked against its SHA-256 and only then renamed, so
a file that is there is whole. Nothing here imports torch.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.request import urlopen

from headway.config.errors import UserError, suggestion
from headway.data._catalogue import DATASETS, Dataset, RemoteFile

__all__ = [
    "DATASETS",
    "DatasetStatus",
    "beside",
    "data_home",
    "dataset_folder",
    "fetch",
    "find_dataset",
    "list_datasets",
    "missing_files",
]

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30


@dataclass(frozen=True)
class DatasetStatus:
    """A line of `headway data`."""

    name: str
    summary: str
    num_bytes: int
    licence: str
    place: str
    """The folder it is kept in, or what it comes with."""
    ready: bool
    """Whether it can be trained on now."""


def data_home() -> Path:
    """Returns the folder of all data sets: $HEADWAY_DATA, or ~/.cache/headway/data."""
    named = os.environ.get("HEADWAY_DATA")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "headway" / "data"


def dataset_folder(folder: str | None, *, default: str) -> Path:
    """Returns the folder that a recipe names: a path, or a plain name for a folder of the data home."""
    named = folder or default
    if "/" in named or named.startswith(("~", ".")):
        return Path(named).expanduser()
    return data_home() / named


def list_datasets(home: Path | None = None) -> list[DatasetStatus]:
    """Returns every data set with where it is kept and whether it is there."""
    return [_status(name, dataset, home or data_home()) for name, dataset in DATASETS.items()]


def _status(name: str, dataset: Dataset, home: Path) -> DatasetStatus:
    found = find_dataset(name, home)
    return DatasetStatus(
        name,
        dataset.summary,
        dataset.num_bytes,
        dataset.licence,
        place=dataset.embedded or str(found or home / name),
        ready=found is not None and (dataset.module is None or find_spec(dataset.module) is not None),
    )


def find_dataset(name: str, home: Path | None = None) -> Path | None:
    """Returns the folder that holds a whole data set: the data home's, or an installed package's own."""
    dataset, folder = DATASETS[name], (home or data_home()) / name
    if not missing_files(folder, dataset):
        return folder
    # What is taken out of an archive lies in the package as it is used; other files are packed there in their own way.
    return dataset.package_folder if dataset.members and _installed(dataset) else None


def missing_files(folder: Path, dataset: Dataset) -> list[str]:
    """Returns the names of a data set's files that are not in a folder, packed or unpacked."""
    return [
        name
        for name in dataset.kept
        if not (folder / name).exists() and not (folder / name.removesuffix(".gz")).is_file()
    ]


def fetch(name: str, home: Path | None = None, *, report: Callable[[str], None] = lambda _: None) -> Path:
    """Returns the folder of a data set, downloaded into it unless it is there already.

    Args:
        name: one of `DATASETS`.
        home: the folder of all data sets; `data_home()` when absent.
        report: called with a line on each thing done.

    Raises:
        UserError: an unknown name, no network (with what to put where by hand), or a file that is
            not what it should be.
    """
    if name not in DATASETS:
        raise UserError(f"data set {name!r} is not known{suggestion(name, DATASETS)}")
    dataset = DATASETS[name]
    if dataset.embedded is not None:
        raise UserError(f"data set {name!r} {dataset.embedded}; there is nothing to fetch")
    found = find_dataset(name, home)
    if found is not None:
        report(f"{name}: is all in {found}")
        return found
    folder = (home or data_home()) / name
    missing = missing_files(folder, dataset)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _installed(dataset):
            _copy_package(dataset, folder, missing, report)
        else:
            _download_all(name, dataset, folder, missing, report)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); set HEADWAY_DATA") from None
    report(f"{name}: ready in {folder}")
    return folder


def _installed(dataset: Dataset) -> bool:
    return dataset.package_folder is not None and not missing_files(dataset.package_folder, dataset)


def _copy_package(dataset: Dataset, folder: Path, missing: list[str], report: Callable[[str], None]) -> None:
    assert dataset.package_folder is not None
    for file in dataset.files:
        if file.name not in missing:
            continue
        source = dataset.package_folder / file.name
        if _content_sha256(source) != file.content_sha256:
            raise UserError(f"{source}: is not the published file; reinstall the package {dataset.package}")
        report(f"copying {source}")
        with beside(folder / file.name) as target, source.open("rb") as opened:
            shutil.copyfileobj(opened, target, _CHUNK_BYTES)


def _download_all(name: str, dataset: Dataset, folder: Path, missing: list[str], report: Callable[[str], None]) -> None:
    for file in dataset.files:
        if not dataset.members and file.name not in missing:
            continue
        report(f"downloading {file.url} ({file.num_bytes / 1e6:.1f} MB)")
        with beside(folder / file.name) as target:
            try:
                found = _download(file, target)
            except (OSError, http.client.HTTPException) as error:
                raise UserError(_by_hand(name, dataset, folder, file, error)) from None
            if found != file.sha256:
                raise UserError(
                    f"{file.url}: is not the published file (SHA-256 {found[:12]}..., not {file.sha256[:12]}...); "
                    "try again, and look for a proxy in between"
                )
        if dataset.members:
            _unpack(folder / file.name, dataset.members)


def _download(file: RemoteFile, target: IO[bytes]) -> str:
    """Returns the SHA-256 of what was written; stops past the size that the file should have."""
    digest = hashlib.sha256()
    received = 0
    with urlopen(file.url, timeout=_TIMEOUT_S) as response:
        while received <= file.num_bytes and (chunk := response.read(_CHUNK_BYTES)):
            digest.update(chunk)
            target.write(chunk)
            received += len(chunk)
    return digest.hexdigest()


def _by_hand(name: str, dataset: Dataset, folder: Path, file: RemoteFile, error: Exception) -> str:
    if dataset.package is not None:
        other = f", or install the Debian package {dataset.package} and fetch {name} again"
    else:
        other = ""
    files = f"{', '.join(dataset.members)} of {file.name}" if dataset.members else ", ".join(dataset.kept)
    reason = getattr(error, "reason", None) or error
    problem = f"{file.url}: cannot be downloaded ({reason})"
    return f"{problem}; where there is no network, put {files} into {folder} by hand{other}"


def _unpack(archive: Path, members: tuple[str, ...]) -> None:
    """Takes the members out of a checked archive, each whole or not at all, and removes it."""
    folder = archive.parent
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".") as staged,
        archive.open("rb") as file,
        tarfile.open(fileobj=_seek_tar(file) if archive.suffix == ".deb" else file) as opened,
    ):
        for entry in opened:
            # By the last parts of its name, so that nothing lands outside the folder.
            path = PurePosixPath(entry.name)
            kept = [path.name] if path.name in members else [path.parent.name, path.name]
            source = opened.extractfile(entry) if entry.isfile() and kept[0] in members else None
            if source is not None:
                target = Path(staged, *kept)
                target.parent.mkdir(exist_ok=True)
                with source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy, _CHUNK_BYTES)
        for member in members:
            if Path(staged, member).exists() and not (folder / member).is_dir():
                Path(staged, member).replace(folder / member)
    archive.unlink()


def _seek_tar(file: IO[bytes]) -> IO[bytes]:
    """Returns a Debian package's data archive. The package is an `ar` archive: a line, then headers of 60 bytes."""
    file.seek(len(b"!<arch>\n"))
    while header := file.read(60):
        num_bytes = int(header[48:58])
        if header.startswith(b"data.tar"):
            return io.BytesIO(file.read(num_bytes))
        # Each starts at an even place.
        file.seek(num_bytes + num_bytes % 2, os.SEEK_CUR)
    raise UserError(f"{file.name}: is no Debian package; remove it and fetch it again")


def _content_sha256(path: Path) -> str:
    try:
        with gzip.open(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return f"unreadable: {error}"


@contextmanager
def beside(target: Path) -> Iterator[IO[bytes]]:
    """Yields a file that becomes `target` if all goes well and is removed if not."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        # mkstemp makes files for one's own eyes; data sets are shared.
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
