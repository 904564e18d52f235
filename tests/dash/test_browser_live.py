"""A real job in a real browser: its curves grow while it runs, its log is read, it is cancelled and sent again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from headway.jobs import board
from headway.jobs.records import list_records
from headway.run import RunFolder

CHART = "[data-metric='train/loss'] .chart"
LAST_STEP = f"""(() => {{
    const chart = echarts.getInstanceByDom(document.querySelector("{CHART}"));
    return chart.getOption().series.find((one) => one && one.id === "run:growing").data.at(-1)[0];
}})()"""


def wait_for(truth: Any, timeout_s: float = 120) -> None:
    until = time.monotonic() + timeout_s
    while not truth():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.fixture(scope="module")
def growing(made_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    """Returns a run that a real job on this machine is writing."""
    recipe = tmp_path_factory.mktemp("job") / "growing.yaml"
    tree = {
        "name": "growing",
        "model": {"kind": "mlp", "hidden": [17]},
        "data": "digits",
        "optim": {"kind": "adamw", "lr": 3e-3},
        "trainer": {"max_steps": 1_000_000, "batch_size": 64, "validate_every": 500, "threads": 1},
        "track": {"wandb": "disabled"},
    }
    recipe.write_text(yaml.safe_dump(tree))
    arguments = ["submit", "fit", str(recipe), "--on", "local", "--name", "growing", "--runs", str(made_runs)]
    subprocess.run([sys.executable, "-m", "headway", *arguments], check=True, capture_output=True, timeout=120)
    run = RunFolder(made_runs / "growing")
    wait_for(run.metrics.is_file)
    yield run
    board.cancel(list_records(made_runs))
    wait_for(lambda: run.status()["state"] != "running")


def test_the_curves_of_a_fit_grow_while_it_runs(look, served, growing) -> None:
    page = look(served.url + "#/run/growing?tab=charts")
    page.wait_for_selector(CHART + " canvas")
    page.wait_for_function("() => document.querySelector(\"[data-metric='train/loss']\").dataset.points > 0")
    for _ in range(3):
        last = page.evaluate(LAST_STEP)
        page.wait_for_function("last => " + LAST_STEP + " > last", arg=last)
    assert page.text_content("#live") == "live"


def test_the_row_of_a_fit_goes_on_while_it_runs(look, served, growing) -> None:
    page = look(served.url + "#/runs?q=growing")
    page.wait_for_selector("tbody tr[data-key=growing] .is-running")
    told = page.inner_text("tbody tr[data-key=growing] .words")
    changed = "before => document.querySelector('tbody tr[data-key=growing] .words').innerText !== before"
    page.wait_for_function(changed, arg=told)


def test_a_reader_without_the_token_can_change_nothing(look, served, growing) -> None:
    page = look(served.url + "#/jobs")
    page.wait_for_selector("tbody .is-running")
    assert page.query_selector("button.act") is None
    assert "cancel and retry" in page.inner_text("main")


def test_jobs_fit_on_a_phone(look, served, growing) -> None:
    page = look(f"{served.url}#/jobs?token={served.token}", size=(360, 780))
    page.wait_for_selector("tbody .is-running")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_job_is_read_cancelled_and_sent_again(look, served, growing) -> None:
    page = look(f"{served.url}#token={served.token}")
    assert served.token not in page.url
    page.click(".pages a:text-is('Jobs')")
    page.wait_for_selector("tbody .is-running")
    page.click("tbody button:text-is('Logs')")
    page.wait_for_function("() => document.querySelector('dialog .log').textContent.includes('step')")
    page.click("dialog button:text-is('Close')")

    page.click("tbody button:text-is('Cancel')")
    assert "growing" in page.inner_text("dialog")
    page.click("dialog button:text-is('Leave it')")
    page.wait_for_selector("dialog", state="detached")
    assert growing.status()["state"] == "running"
    page.click("tbody button:text-is('Cancel')")
    page.click("dialog button:text-is('Cancel')")
    page.wait_for_selector("tbody .is-cancelled", timeout=60_000)
    assert growing.status()["state"] == "stopped"

    page.click("tbody button:text-is('Retry')")
    page.click("dialog button:text-is('Retry')")
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 2", timeout=60_000)
    log = (served.runs / ".dash.log").read_text()
    assert json.loads(log.splitlines()[0])["action"] == "cancel-job"
    assert served.token not in log


def test_a_run_is_deleted_after_its_name_was_said(look, served) -> None:
    page = look(f"{served.url}#/run/mlp-digits-0&token={served.token}")
    page.click("button:text-is('Delete')")
    assert "mlp-digits-0" in page.inner_text("dialog")
    page.click("dialog button:text-is('Delete')")
    page.wait_for_selector("[data-page=runs][data-ready]")
    assert not (served.runs / "mlp-digits-0").exists()
