"""Data sets by name: what there is, and how it gets here, whole or not at all."""

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import urllib.error
from dataclasses import replace

import pytest

from headway.config.errors import UserError
from headway.data import _store
from headway.data._catalogue import DATASETS, Dataset, RemoteFile

pytestmark = pytest.mark.quick


def sha256(raw):
    return hashlib.sha256(raw).hexdigest()


@pytest.fixture
def server(tmp_path):
    """A folder whose files have addresses."""
    folder = tmp_path / "server"
    folder.mkdir()
    return folder


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def publish(server, name, raw):
    (server / name).write_bytes(raw)
    content = gzip.decompress(raw) if name.endswith(".gz") and not name.endswith(".tar.gz") else raw
    return RemoteFile((server / name).as_uri(), len(raw), sha256(raw), sha256(content))


def register(monkeypatch, **settings):
    facts = {"summary": "toys", "num_bytes": 7, "licence": "MIT", **settings}
    monkeypatch.setitem(DATASETS, "toys", Dataset(**facts))


def test_a_fetched_data_set_is_checked_and_whole(server, home, monkeypatch):
    files = (publish(server, "a.gz", gzip.compress(b"seven")), publish(server, "b.gz", gzip.compress(b"eleven")))
    register(monkeypatch, files=files)
    lines = []
    folder = _store.fetch("toys", home, report=lines.append)
    assert folder == home / "toys"
    assert sorted(path.name for path in folder.iterdir()) == ["a.gz", "b.gz"]
    assert gzip.decompress((folder / "b.gz").read_bytes()) == b"eleven"
    assert (folder / "a.gz").stat().st_mode & 0o777 == 0o644
    assert lines[0].startswith(f"downloading {files[0].url}")
    assert lines[-1] == f"toys: ready in {folder}"


def test_what_is_there_is_not_fetched_again(server, home, monkeypatch):
    register(monkeypatch, files=(publish(server, "a.gz", gzip.compress(b"seven")),))
    _store.fetch("toys", home)
    monkeypatch.setattr(_store, "urlopen", lambda *_, **__: pytest.fail("nothing is missing"))
    _store.fetch("toys", home)
    (home / "toys" / "a.gz").rename(home / "toys" / "a")
    _store.fetch("toys", home)


def test_another_file_than_the_published_one_is_refused_and_removed(server, home, monkeypatch):
    file = publish(server, "a.gz", gzip.compress(b"seven"))
    register(monkeypatch, files=(file,))
    (server / "a.gz").write_bytes(gzip.compress(b"eight"))
    with pytest.raises(UserError, match=r"a\.gz: is not the published file \(SHA-256"):
        _store.fetch("toys", home)
    assert list((home / "toys").iterdir()) == []


def test_a_download_stops_past_the_published_size(server, home, monkeypatch):
    register(monkeypatch, files=(publish(server, "a.bin", b"seven"),))
    monkeypatch.setattr(_store, "_CHUNK_BYTES", 3)
    (server / "a.bin").write_bytes(b"x" * 10_007)
    received = []
    download = _store._download

    def measured(file, target):
        found = download(file, target)
        received.append(target.tell())
        return found

    monkeypatch.setattr(_store, "_download", measured)
    with pytest.raises(UserError, match="is not the published file"):
        _store.fetch("toys", home)
    assert received == [6]


def test_without_a_network_the_files_and_their_folder_are_named(home, monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(_store, "urlopen", unreachable)
    with pytest.raises(UserError) as caught:
        _store.fetch("mnist", home)
    message = str(caught.value)
    assert "no route to host" in message
    assert f"into {home / 'mnist'} by hand" in message
    assert all(f"{name}.gz" in message for name in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"))
    assert list((home / "mnist").iterdir()) == []


def test_without_a_network_the_debian_package_is_named(home, tmp_path, monkeypatch):
    monkeypatch.setitem(
        DATASETS, "fashion_mnist", replace(DATASETS["fashion_mnist"], package_folder=tmp_path / "not installed")
    )

    def unreachable(*_, **__):
        raise TimeoutError("timed out")

    monkeypatch.setattr(_store, "urlopen", unreachable)
    with pytest.raises(UserError, match=r"Debian package dataset-fashion-mnist and fetch fashion_mnist again"):
        _store.fetch("fashion_mnist", home)


def test_the_files_of_an_installed_package_are_copied(server, home, monkeypatch):
    file = publish(server, "a.gz", gzip.compress(b"seven"))
    # The package packs the same content in its own way.
    (server / "a.gz").write_bytes(gzip.compress(b"seven", compresslevel=1, mtime=7))
    register(monkeypatch, files=(file,), package="toys-deb", package_folder=server)
    monkeypatch.setattr(_store, "urlopen", lambda *_, **__: pytest.fail("the package is there"))
    folder = _store.fetch("toys", home)
    assert gzip.decompress((folder / "a.gz").read_bytes()) == b"seven"


@pytest.mark.parametrize(
    "raw",
    [gzip.compress(b"eight"), b"no gzip", gzip.compress(b"seven")[:-9]],
    ids=["other content", "no gzip", "truncated"],
)
def test_a_damaged_file_of_a_package_is_not_copied(server, home, monkeypatch, raw):
    file = publish(server, "a.gz", gzip.compress(b"seven"))
    (server / "a.gz").write_bytes(raw)
    register(monkeypatch, files=(file,), package="toys-deb", package_folder=server)
    with pytest.raises(UserError, match="reinstall the package toys-deb"):
        _store.fetch("toys", home)
    assert list((home / "toys").iterdir()) == []


def test_the_members_of_an_archive_are_taken_out_of_it(server, home, monkeypatch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, raw in (("x/a.bin", b"seven"), ("x/b.bin", b"eleven"), ("../../c.bin", b"out"), ("x/notes", b"no")):
            entry = tarfile.TarInfo(name)
            entry.size = len(raw)
            archive.addfile(entry, io.BytesIO(raw))
    register(
        monkeypatch,
        files=(publish(server, "all.tar.gz", packed.getvalue()),),
        members=("a.bin", "b.bin", "c.bin"),
    )
    folder = _store.fetch("toys", home)
    assert sorted(path.name for path in folder.iterdir()) == ["a.bin", "b.bin", "c.bin"]
    assert (folder / "b.bin").read_bytes() == b"eleven"


def debian_package(members):
    """Returns the bytes of a package whose data archive has these files: an `ar` archive of three."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        for name, raw in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(raw)
            archive.addfile(entry, io.BytesIO(raw))
    parts = [(b"debian-binary", b"2.0\n"), (b"control.tar.xz", b"odd"), (b"data.tar.xz", packed.getvalue())]
    headers = (b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name, 7, 0, 0, b"100644", len(raw)) for name, raw in parts)
    padded = (raw + b"\n" * (len(raw) % 2) for _, raw in parts)
    return b"!<arch>\n" + b"".join(header + raw for header, raw in zip(headers, padded, strict=True))


def test_the_folders_of_a_debian_package_are_taken_out_of_it(server, home, monkeypatch):
    files = [
        ("./usr/doc/de/a.html", b"seven"),
        ("./usr/doc/de/images/b.png", b"no"),
        ("./usr/doc/fr/a.html", b"eleven"),
    ]
    file = publish(server, "toys.deb", debian_package([*files, ("./usr/doc/it/a.html", b"no")]))
    register(monkeypatch, files=(file,), members=("de", "fr"))
    folder = _store.fetch("toys", home)
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {"de/a.html": b"seven", "fr/a.html": b"eleven"}
    monkeypatch.setattr(_store, "urlopen", lambda *_, **__: pytest.fail("nothing is missing"))
    assert _store.fetch("toys", home) == _store.find_dataset("toys", home) == folder


def test_the_folders_of_an_installed_package_are_used_where_they_are(server, home, monkeypatch):
    file = publish(server, "toys.deb", b"seven")
    register(monkeypatch, files=(file,), members=("de", "fr"), package="toys-deb", package_folder=server)
    (server / "de").mkdir()
    assert _store.find_dataset("toys", home) is None
    (server / "fr").mkdir()
    monkeypatch.setattr(_store, "urlopen", lambda *_, **__: pytest.fail("the package is there"))
    assert _store.fetch("toys", home) == server
    status = {status.name: status for status in _store.list_datasets(home)}["toys"]
    assert (status.ready, status.place) == (True, str(server))


def test_what_comes_with_an_optional_module_is_ready_where_that_is_installed(home, monkeypatch):
    for module, ready in (("json", True), ("no_such_module", False)):
        register(monkeypatch, embedded="comes with it", module=module)
        assert {status.name: status for status in _store.list_datasets(home)}["toys"].ready is ready


def test_an_unknown_name_gets_a_suggestion(home):
    with pytest.raises(UserError, match=r"'mnst' is not known; did you mean mnist\?"):
        _store.fetch("mnst", home)


def test_what_comes_along_needs_no_fetching(home):
    with pytest.raises(UserError, match="'digits' comes with scikit-learn; there is nothing to fetch"):
        _store.fetch("digits", home)


def test_a_home_that_cannot_be_written_is_named(server, home, monkeypatch):
    register(monkeypatch, files=(publish(server, "a.bin", b"seven"),))
    home.write_text("a file, not a folder", encoding="utf-8")
    with pytest.raises(UserError, match=rf"^{home}/toys: cannot be written"):
        _store.fetch("toys", home)


def test_the_list_says_what_is_there(server, home, monkeypatch):
    register(monkeypatch, files=(publish(server, "a.gz", gzip.compress(b"seven")),))
    before = {status.name: status for status in _store.list_datasets(home)}
    assert before["digits"].ready
    assert before["digits"].place == "comes with scikit-learn"
    assert before["toys"].place == str(home / "toys")
    assert not before["toys"].ready
    _store.fetch("toys", home)
    assert {status.name: status for status in _store.list_datasets(home)}["toys"].ready


def test_every_data_set_to_download_has_sizes_checksums_and_a_licence():
    for dataset in DATASETS.values():
        assert dataset.licence
        assert bool(dataset.files) != bool(dataset.embedded)
        assert all(len(file.sha256) == 64 and file.num_bytes > 0 for file in dataset.files)
        if not dataset.members:
            assert dataset.num_bytes == sum(file.num_bytes for file in dataset.files)


def test_a_plain_name_is_in_the_data_home_and_a_path_is_itself(home, monkeypatch):
    monkeypatch.setenv("HEADWAY_DATA", str(home))
    assert _store.dataset_folder(None, default="mnist") == home / "mnist"
    assert _store.dataset_folder("fashion_mnist", default="mnist") == home / "fashion_mnist"
    assert str(_store.dataset_folder("./here", default="mnist")) == "here"
    assert str(_store.dataset_folder("/there", default="mnist")) == "/there"
    monkeypatch.delenv("HEADWAY_DATA")
    monkeypatch.setenv("HOME", "/somewhere")
    assert str(_store.data_home()) == "/somewhere/.cache/headway/data"


def test_listing_imports_no_torch():
    program = (
        "import sys; from headway.data._store import list_datasets; list_datasets(); print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
