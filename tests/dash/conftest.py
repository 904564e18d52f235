"""A runs folder to look at, `headway dash` over it, and a browser that looks."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
# Whatever the browser would ask of its makers it does not ask in a test.
BROWSER_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip
DESKTOP, PHONE = (1440, 900), (360, 780)


@dataclass(frozen=True)
class Served:
    """A running `headway dash`."""

    url: str
    """Without the token."""
    token: str
    runs: Path


@pytest.fixture(scope="session")
def making() -> ModuleType:
    """Returns the module that makes runs folders."""
    spec = importlib.util.spec_from_file_location("make_runs", HERE / "make_runs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def made_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Returns a folder of runs that were never trained: see make_runs.py."""
    folder = tmp_path_factory.mktemp("dash") / "runs"
    sizes = ("--runs", "130", "--rows", "60000")
    subprocess.run([sys.executable, str(HERE / "make_runs.py"), str(folder), *sizes], check=True, timeout=120)
    yield folder
    (folder / "not-mine").chmod(0o700)


@contextlib.contextmanager
def serving(runs: Path, *arguments: str) -> Iterator[Served]:
    """Runs `headway dash` over a folder."""
    command = [sys.executable, "-m", "headway", "dash", "--runs", str(runs), "--no-open", "--json", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            yield Served(url=told["url"].partition("#")[0], token=told["token"], runs=runs)
        finally:
            process.terminate()
            process.wait(timeout=20)


@pytest.fixture
def serve() -> Callable[..., contextlib.AbstractContextManager[Served]]:
    """Returns a function that gives `headway dash` over a folder, as a context."""
    return serving


@pytest.fixture(scope="session")
def serve_runs() -> Callable[..., contextlib.AbstractContextManager[Served]]:
    """Returns what runs `headway dash` over a folder, with more of its arguments."""
    return serving


@pytest.fixture(scope="session")
def served(made_runs: Path) -> Iterator[Served]:
    """Returns `headway dash` over the made runs."""
    with serving(made_runs) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Returns Debian's Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed here")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed here")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=list(BROWSER_ARGUMENTS))
        yield chromium
        chromium.close()


@pytest.fixture
def look(browser: Any) -> Iterator[Callable[..., Any]]:
    """Returns a function that opens an address and waits until its page is there.

    A dialog of a script, an error, a warning of the page's policy: each fails the test.
    """
    contexts, complaints = [], []

    def opened(
        address: str,
        *,
        size: tuple[int, int] = DESKTOP,
        theme: str = "light",
        offline: bool = False,
        expect: str | tuple[str, ...] = (),
        touch: bool = False,
    ) -> Any:
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=viewport, color_scheme=theme, has_touch=touch, is_mobile=touch)
        contexts.append(context)
        context.set_default_timeout(20_000)
        context.set_offline(offline)
        page = context.new_page()
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("console", lambda told: _hear(told, complaints, expect))
        page.goto(address)
        page.wait_for_selector(".page[data-ready]")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="session")
def drawn() -> Callable[..., None]:
    """Returns a function that waits until a metric's curves are drawn."""

    def wait(page: Any, metric: str = "train/loss") -> None:
        page.wait_for_function(
            """metric => {
                const card = document.querySelector(`[data-metric='${metric}']`);
                const there = card && card.dataset.points > 0 && card.querySelector('canvas');
                return there && !card.classList.contains('is-loading');
            }""",
            arg=metric,
        )

    return wait


@pytest.fixture(scope="session")
def finger() -> Callable[..., None]:
    """Returns a function that puts a finger on the page, moves it in eight steps, and lifts it: a tap without a way."""

    def touch(page: Any, at: tuple[float, float], way: tuple[float, float] | None = None) -> None:
        devtools = page.context.new_cdp_session(page)

        def tell(kind: str, *points: dict[str, float]) -> None:
            devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        tell("touchStart", {"x": at[0], "y": at[1]})
        for part in range(1, 9) if way else ():
            tell("touchMove", {"x": at[0] + way[0] * part / 8, "y": at[1] + way[1] * part / 8})
        tell("touchEnd")
        devtools.detach()

    return touch


def _hear(told: Any, complaints: list[str], expect: str | tuple[str, ...]) -> None:
    expected = (expect,) if isinstance(expect, str) else expect
    if told.type in ("error", "warning") and not any(part in told.text for part in expected):
        complaints.append(f"{told.type}: {told.text} ({told.location})")
