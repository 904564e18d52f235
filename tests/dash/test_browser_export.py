"""The export in a real browser: opened from disk, with the network off, and as much at home there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def exported(made_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns the address of an exported page on this disk."""
    folder = tmp_path_factory.mktemp("export") / "page"
    command = [sys.executable, "-m", "headway", "dash", "--runs", str(made_runs), "--export", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    return (folder / "index.html").as_uri()


@pytest.fixture
def read(look: Any, exported: str) -> Any:
    """Returns a function that opens a page of the export without a network."""
    return lambda fragment, **more: look(exported + fragment, offline=True, **more)


def test_runs_are_filtered_sorted_grouped_and_paged_without_a_server(read) -> None:
    page = read("#/runs?sort=id")
    assert page.locator("tbody tr[data-key]").count() == 50
    page.click(".pager button:text-is('Next')")
    page.wait_for_function("() => location.hash.includes('page=1')")
    page.fill("input[aria-label='Filter runs']", "state=done optim.lr>0.01 recipe:convnet")
    page.wait_for_function("() => document.querySelector('[role=status]').textContent.includes(' of ')")
    states = page.eval_on_selector_all("tbody .state", "all => all.map(one => one.innerText)")
    assert set(states) == {"done"}
    page.select_option("label:has-text('Group') select", "strategy")
    page.wait_for_selector("tr.group")
    assert page.query_selector("button.act") is None


def test_curves_of_a_run_are_there_and_zoomed_into(read) -> None:
    page = read("#/run/gpt-python-docs-0?tab=charts&x=tokens&range=1000..5000")
    page.wait_for_selector("[data-metric='train/loss'] canvas")
    page.wait_for_function("() => document.querySelector(\"[data-metric='train/loss']\").dataset.points > 0")
    page.click("#whole-range")
    page.wait_for_function("() => !location.hash.includes('range')")


def test_runs_are_compared(read) -> None:
    page = read("#/compare?runs=convnet-digits-0,convnet-digits-1")
    page.wait_for_selector("[data-metric='val/loss'] canvas")
    settings = page.eval_on_selector_all("section.part tbody th", "all => all.map(one => one.innerText)")
    assert "optim.lr" in settings
    assert "model.kind" not in settings


@pytest.mark.parametrize(
    ("tab", "there"),
    [
        ("overview", "dl.headline"),
        ("health", "[data-kind=grad_norm] canvas"),
        ("throughput", "[data-chart=step-time] canvas"),
        ("logs", ".log:not([data-empty])"),
        ("checkpoints", "tbody .tag"),
        ("recipe", ".yaml"),
    ],
)
def test_every_tab_of_a_run_is_there(read, tab, there) -> None:
    read(f"#/run/gpt-python-docs-0?tab={tab}").wait_for_selector(there)


def test_pictures_tables_and_texts_are_there(read) -> None:
    page = read("#/run/gpt-python-docs-0?tab=media")
    page.wait_for_function("() => document.querySelector('.picture img').naturalWidth > 0")
    page.wait_for_selector(".media-text tbody tr")
    page.wait_for_function("() => document.querySelector('.media-text .log')?.textContent.length > 0")


def test_a_sweep_and_the_jobs_are_there(read) -> None:
    page = read("#/sweeps")
    page.click("tbody .main-link:text-is('digits-asha')")
    page.wait_for_selector("[data-chart=parallel] canvas")
    page.wait_for_selector(".importance tbody tr")
    page.click(".pages a:text-is('Jobs')")
    page.wait_for_selector("[data-page=jobs][data-ready]")


def test_a_name_that_is_markup_does_nothing_there_either(read) -> None:
    page = read("#/runs?q=onerror")
    page.click("tbody .main-link")
    page.wait_for_selector("[data-page=run][data-ready]")
    assert page.inner_text("h1").startswith("<script>alert(1)<")
