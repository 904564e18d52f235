"""Things that change under an open page: a server that ends, runs that go and come, a sweep that begins."""

from __future__ import annotations

import json
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headway.run import MetricsFile
from headway.sweep.check import check_sweep
from headway.sweep.ledger import Ledger, create_sweep_folder, trial_run_id

Make = Callable[..., Any]
UNANSWERED = "net::ERR_"
LOSS = "[data-metric='train/loss']"
LIVE = "() => document.documentElement.dataset.live === 'on'"
LAST_STEP = """() => {
    const box = document.querySelector("[data-metric='train/loss'] .chart");
    const chart = box && window.echarts && echarts.getInstanceByDom(box);
    const line = chart && chart.getOption().series.find((one) => one && one.id.startsWith("run:"));
    return line && line.data.length ? line.data.at(-1)[0] : null;
}"""


@pytest.fixture
def look(look: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that opens an address of a server that ends before the browser does."""
    return lambda address, expect=UNANSWERED, **more: look(address, expect=(UNANSWERED, expect), **more)


@pytest.fixture
def make(making: Any, tmp_path: Path) -> Make:
    """Returns a function that makes a run in a folder of this test's own."""
    draw = random.Random(0)
    (tmp_path / "runs").mkdir()

    def made(name: str, **how: Any) -> Any:
        settings = {"lr": 1e-3, "started": 1.7e9, "draw": draw, "num_rows": 60, "health": False, "media": False, **how}
        return making.make_fit(tmp_path / "runs", "mlp-digits", name, **settings)

    return made


@pytest.fixture
def runs(make: Make, tmp_path: Path) -> Path:
    """Returns the folder in which `make` makes runs."""
    return tmp_path / "runs"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def hide(page: Any, *, hidden: bool) -> None:
    """Makes a tab one that nobody sees, or that is looked at again."""
    page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


# ---- the server ------------------------------------------------------------------------------------


def test_a_page_says_that_its_server_is_gone_and_goes_on_with_the_next_one(look, serve, make, runs) -> None:
    make("before")
    port = free_port()
    with serve(runs, "--port", str(port)) as server:
        page = look(f"{server.url}#token={server.token}")
        page.wait_for_selector("tr[data-key=before]")
        page.wait_for_function(LIVE)
        assert page.is_hidden("#lost")
    page.wait_for_selector("#lost:not([hidden])")
    assert "does not answer" in page.inner_text("#lost")
    assert page.is_visible("tr[data-key=before]")
    make("meanwhile")
    with serve(runs, "--port", str(port)):
        page.wait_for_selector("tr[data-key=meanwhile]")
        assert page.is_hidden("#lost")
        # The token was the other server's.
        page.click("tr[data-key=meanwhile] .main-link")
        page.wait_for_selector("[data-page=run][data-ready]")
        assert page.query_selector("button.act") is None


def test_a_page_that_was_opened_without_a_server_comes_by_itself(look, serve, make, runs) -> None:
    make("one")
    port = free_port()
    with serve(runs, "--port", str(port)) as server:
        page = look(server.url + "#/sweeps")
    page.evaluate("() => { location.hash = '#/run/one' }")
    page.wait_for_selector("[data-page=run] .message.bad")
    with serve(runs, "--port", str(port)):
        page.wait_for_selector("h1:text-is('one')")


def test_a_tab_that_nobody_sees_does_not_listen_and_catches_up_when_it_is_looked_at(look, serve, make, runs) -> None:
    make("before")
    with serve(runs) as server:
        page = look(server.url + "#/runs")
        page.wait_for_selector("tr[data-key=before]")
        page.wait_for_function(LIVE)
        hide(page, hidden=True)
        with page.expect_request(lambda request: "/api/runs" in request.url):
            make("meanwhile")
            hide(page, hidden=False)
        page.wait_for_selector("tr[data-key=meanwhile]")


def test_a_browser_opens_as_many_tabs_as_one_likes(look, serve, make, runs) -> None:
    """It keeps six connections to a server: tabs in the background must not hold them all."""
    make("one")
    with serve(runs) as server:
        page = look(server.url + "#/run/one")
        background = "Object.defineProperty(document, 'hidden', { configurable: true, get: () => true })"
        for _ in range(8):
            tab = page.context.new_page()
            tab.add_init_script(background)
            tab.goto(server.url + "#/run/one")
            tab.wait_for_selector("[data-page=run][data-ready]")
        tab = page.context.new_page()
        tab.goto(server.url + "#/runs")
        tab.wait_for_selector("tr[data-key=one]")


def test_a_wrong_token_is_said_to_be_wrong_and_the_right_one_lets_in(look, serve, make, runs) -> None:
    make("one")
    with serve(runs, "--host", "0.0.0.0") as first, serve(runs, "--host", "0.0.0.0") as second:
        address, other = (f"http://127.0.0.1:{one.url.rstrip('/').rpartition(':')[2]}/" for one in (first, second))
        page = look(address, expect="401 (Unauthorized)")
        page.fill("input[aria-label=Token]", "not-it")
        page.click("button:text-is('Go on')")
        page.wait_for_selector(".sign-in .message.bad")
        page.fill("input[aria-label=Token]", first.token)
        page.click("button:text-is('Go on')")
        page.wait_for_selector("tr[data-key=one]")
        page.wait_for_function(LIVE)
        # Another server of this machine has another token, and takes nothing from the first.
        beside = page.context.new_page()
        beside.goto(f"{other}#token={second.token}")
        beside.wait_for_selector("tr[data-key=one]")
        assert second.token not in beside.url
        make("two")
        for tab in (page, beside):
            tab.wait_for_selector("tr[data-key=two]")
        page.reload()
        page.wait_for_selector("tr[data-key=two]")
        page.wait_for_function(LIVE)


# ---- runs that go and come -------------------------------------------------------------------------


def test_a_run_whose_folder_goes_is_said_to_be_gone_until_it_is_back(look, serve, make, runs) -> None:
    make("one")
    with serve(runs) as server:
        page = look(server.url + "#/run/one")
        page.wait_for_function(LIVE)
        (runs / "one").rename(runs.parent / "aside")
        page.wait_for_selector(".message.bad:has-text('no longer there')")
        assert page.inner_text("h1") == "one"
        (runs.parent / "aside").rename(runs / "one")
        page.wait_for_selector(".message.bad", state="detached")


def test_a_comparison_goes_on_without_a_run_that_is_gone(look, serve, make, runs) -> None:
    for name in ("one", "two", "late"):
        make(name)
    with serve(runs) as server:
        page = look(server.url + "#/compare?runs=one,two,three")
        assert page.locator(".legend li").count() == 2
        assert page.inner_text(".message.bad").startswith("three is no longer in the runs folder.")
        page.wait_for_function(LIVE)
        shutil.rmtree(runs / "two")
        page.wait_for_selector(".message.bad:has-text('three, two are no longer')")
        page.click("button:text-is('Go on without')")
        page.wait_for_function("() => document.querySelectorAll('.legend li').length === 1")
        assert page.query_selector(".message.bad") is None
        page.fill("input[aria-label='Add a run']", "late")
        page.wait_for_selector("#other-runs option[value=late]", state="attached")
        page.press("input[aria-label='Add a run']", "Enter")
        page.wait_for_function("() => document.querySelectorAll('.legend li').length === 2")


def test_the_runs_folder_goes_and_comes_back(look, serve, make, runs) -> None:
    make("one")
    with serve(runs) as server:
        page = look(server.url + "#/runs")
        page.wait_for_selector("tr[data-key=one]")
        page.wait_for_function(LIVE)
        runs.rename(runs.parent / "aside")
        page.wait_for_selector(".message.bad:has-text('No such file')")
        (runs.parent / "aside").rename(runs)
        page.wait_for_selector("tr[data-key=one]")
        page.wait_for_selector(".message.bad", state="detached")


def test_rows_that_a_resume_drops_leave_the_open_chart(look, serve, make, runs) -> None:
    run = make("one", num_rows=60, state="running")
    with serve(runs) as server:
        page = look(server.url + "#/run/one?tab=charts")
        page.wait_for_function(f"() => ({LAST_STEP})() === 60")
        page.wait_for_function(LIVE)
        metrics = MetricsFile(run.metrics, keep_through=40)
        page.wait_for_function(f"() => ({LAST_STEP})() === 40")
        metrics.write([{"step": step, "train/loss": 7.0} for step in range(41, 46)])
        metrics.close()
        page.wait_for_function(f"() => ({LAST_STEP})() === 45")


def test_what_a_running_run_gains_is_shown_in_the_tab_that_is_open(look, serve, make, runs) -> None:
    run = make("one", state="running")
    shutil.rmtree(run.checkpoints)
    run.log(0).unlink()
    run.log(1).unlink()
    with serve(runs) as server:
        page = look(server.url + "#/run/one?tab=checkpoints")
        assert page.inner_text(".message") == "No checkpoint is kept."
        log = look(server.url + "#/run/one?tab=logs")
        assert log.inner_text(".message") == "No rank has printed anything."
        (run.checkpoints / "00000060").mkdir(parents=True)
        run.log(0).write_text("step 60\n")
        run.update_status(step=60)
        page.wait_for_selector("tbody tr")
        assert page.inner_text(".tabs a[aria-current] .count") == "1"
        log.wait_for_function("() => document.querySelector('.log')?.textContent === 'step 60\\n'")


def test_what_is_being_typed_stays_while_the_run_goes_on(look, serve, make, runs) -> None:
    run = make("one", state="running")
    with serve(runs) as server:
        page = look(server.url + "#/run/one")
        page.click("input[aria-label='Find in settings']")
        page.keyboard.type("optim")
        found = page.inner_text("[aria-label=Settings]")
        run.update_status(step=33)
        page.wait_for_selector(".progress:has-text('33 /')")
        page.keyboard.type(".lr")
        assert page.input_value("input[aria-label='Find in settings']") == "optim.lr"
        assert page.inner_text("[aria-label=Settings] dt") == "optim.lr"
        assert "optim.lr" in found


# ---- sweeps ----------------------------------------------------------------------------------------


def test_a_sweep_that_is_open_before_its_first_trial_is_drawn_as_it_goes(look, serve, make, runs) -> None:
    plan = check_sweep("mlp-digits", ["sweep.trials=9", "sweep.scheduler=asha", "trainer.max_steps=90"])
    ledger = Ledger(create_sweep_folder(runs, plan, name="search"), plan)
    with serve(runs) as server:
        page = look(server.url + "#/sweep/search")
        assert "No trial has begun." in page.inner_text("main")
        page.wait_for_function(LIVE)
        for number in range(9):
            config = {"init.kind": "xavier", "model.dropout": 0.05 * number, "optim.lr": 1e-3 * (number + 1)}
            ledger.propose(number, config)
            ledger.start(number, config)
            state = "failed" if number == 8 else "done"
            num_rows = 90 if number < 2 else 30
            run = make(trial_run_id("search", number), num_rows=num_rows, lr=config["optim.lr"], state=state)
            if number == 8:
                run.update_status(best=None)
                run.metrics.write_text("")
            for step in (30, 90)[: 2 if number < 2 else 0 if number == 8 else 1]:
                ledger.report(number, {plan.search.metric: 1.0 / (number + step), "step": step, "done": False})
            ledger.end(number, "train/loss is nan at step 211" if number == 8 else None)
        for chart in ("parallel", "scatter", "rungs"):
            page.wait_for_selector(f"[data-chart={chart}]")
        page.wait_for_selector("figure:has-text('Best so far')")
        page.wait_for_function("() => document.querySelectorAll('.trials tbody tr').length === 9")
        assert page.get_attribute(".trials tbody tr .is-failed", "title") == "train/loss is nan at step 211"
        # It has no result, and its settings are drawn all the same.
        page.wait_for_selector("[data-chart=parallel] canvas")
        chart = "echarts.getInstanceByDom(document.querySelector('[data-chart=parallel] .chart'))"
        drawn = page.evaluate(chart + ".getOption().series.map((one) => one.data.length)")
        assert drawn == [8, 1]
        ledger.close("done")
        page.wait_for_selector(".page-head .is-done")


def test_how_a_sweep_is_looked_at_is_in_the_address(look, served) -> None:
    page = look(served.url + "#/sweep/digits-asha")
    page.fill("input[aria-label='Filter trials']", "state=stopped")
    page.click(".trials th[data-column='values.optim.lr'] button")
    again = look(page.url)
    numbers = ".trials tbody th"
    assert again.locator(numbers).all_inner_texts() == page.locator(numbers).all_inner_texts()
    assert again.input_value("input[aria-label='Filter trials']") == "state=stopped"
    listed = look(served.url + "#/sweeps")
    listed.click("th[data-column=id] button")
    assert look(listed.url).locator("tbody .main-link").all_inner_texts() == ["digits-asha", "digits-pbt"]


# ---- numbers that are none -------------------------------------------------------------------------


def test_a_log_scale_says_what_it_has_no_place_for(look, serve, runs) -> None:
    values = [4.0, 2.0, 0.0, -1.0, None, 1.0, 0.5]
    rows = [{"step": step, "time": 1.7e9 + step, "train/loss": value} for step, value in enumerate(values, start=1)]
    (runs / "odd").mkdir()
    (runs / "odd" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serve(runs) as server:
        page = look(server.url + "#/run/odd?tab=charts&log=1")
        page.wait_for_function(f"() => ({LAST_STEP})() === 7")
        assert page.inner_text(LOSS + " .card-tools .note") == "1 point nan or infinite, 2 points not above zero"
        shown = page.evaluate(
            """() => {
                const chart = echarts.getInstanceByDom(document.querySelector("[data-metric='train/loss'] .chart"));
                return [chart.getOption().series[0].data.map((pair) => pair[1]),
                        chart.getModel().getComponent("yAxis").axis.scale.getExtent()];
            }"""
        )
        assert shown[0] == [4, 2, None, None, None, 1, 0.5]
        assert shown[1][0] > 0
        page.uncheck("label:text-is('Log scale')")
        assert page.inner_text(LOSS + " .card-tools .note") == "1 point nan or infinite"


def test_a_run_of_many_metrics_is_drawn_whole(look, serve, runs) -> None:
    row = {f"train/part-{number:03d}": 1.0 for number in range(307)}
    (runs / "wide").mkdir()
    (runs / "wide" / "metrics.jsonl").write_text(json.dumps({"step": 1, "time": 1.0, **row}) + "\n")
    with serve(runs) as server:
        page = look(server.url + "#/runs")
        many = page.evaluate(
            """async (names) => {
                const asked = names.map((name) => Headway.series.get("wide", name, { x: "step", from: "", to: "" }));
                return (await Promise.all(asked)).filter((one) => one && one.y[0] === 1).length;
            }""",
            list(row),
        )
        assert many == 307
