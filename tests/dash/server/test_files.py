"""No path leads out of the folder."""

import contextlib
import os
from pathlib import Path

import pytest

from headway.dash.files import Outside, folder_below, list_below, open_below, read_below

pytestmark = pytest.mark.quick


@pytest.fixture
def root(tmp_path):
    inside = tmp_path / "root"
    (inside / "run" / "logs").mkdir(parents=True)
    (inside / "run" / "logs" / "rank-0.log").write_text("hello")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "secret").write_text("secret")
    return inside


def test_a_file_below_is_read(root):
    assert read_below(root, "run", "logs", "rank-0.log", limit=5) == b"hello"
    with open_below(root, "run", "logs", "rank-0.log") as file:
        assert file.read() == b"hello"
    assert [name for name, _ in list_below(root, "run")] == ["logs"]
    assert list_below(root, "run", "media") == []


@pytest.mark.parametrize(
    "parts",
    [("..", "secret"), ("run", "..", "..", "secret"), ("run", "../../secret"), ("/etc/passwd",), ("",), (".",),
     ("run", ".", "logs"), ("run", "logs\0"), ("run", "logs", "..", "..", "..", "secret")],
)  # fmt: skip
def test_a_path_that_leads_out_is_refused(root, parts):
    with pytest.raises(Outside):
        read_below(root, *parts, limit=100)


def test_a_link_is_not_followed_wherever_it_leads(root, tmp_path):
    (root / "run" / "file").symlink_to(tmp_path / "secret")
    (root / "run" / "folder").symlink_to(tmp_path / "secrets")
    (root / "run" / "inside").symlink_to(root / "run" / "logs" / "rank-0.log")
    (root / "linked").symlink_to(root / "run")
    for parts in (("run", "file"), ("run", "folder", "secret"), ("run", "inside"), ("linked", "logs", "rank-0.log")):
        with pytest.raises(Outside, match=r"is a link; links are not followed$"):
            read_below(root, *parts, limit=100)
    assert [name for name, _ in list_below(root, "run")] == ["logs"]


@pytest.mark.timeout(20)
def test_what_is_no_plain_file_is_refused_and_does_not_block(root):
    os.mkfifo(root / "run" / "pipe")
    for parts in (("run", "pipe"), ("run", "logs")):
        with pytest.raises(OSError, match="no plain file"):
            read_below(root, *parts, limit=100)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(root):
    with (root / "run" / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match=r"^huge is larger than 1,000 bytes$"):
        read_below(root, "run", "huge", limit=1000)


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_descriptors_are_given_back(root):
    before = open_descriptors()
    for _ in range(5):
        for parts in (("run", "logs", "rank-0.log"), ("run", "nothing"), ("run", ".."), ("run", "logs")):
            with contextlib.suppress(OSError):
                read_below(root, *parts, limit=100)
        with folder_below(root, "run"):
            pass
    assert open_descriptors() == before
