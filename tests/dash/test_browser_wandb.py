"""Runs that W&B wrote offline, in a real browser: found, opened, drawn, compared, on a phone, and from disk."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PHONE = (360, 780)
NUM_STEPS = 40
HOSTILE = "<script>alert(1)</script>"
TABS = ("overview", "charts", "logs", "media", "histograms")
FIRST = "#/run/wandb-first"
# What a chart has drawn: {id: number of points} of its lines.
LINES = """metric => {
    const chart = echarts.getInstanceByDom(document.querySelector(`[data-metric='${metric}'] .chart`));
    const lines = chart.getOption().series.filter((one) => one && one.type === 'line');
    return Object.fromEntries(lines.map((one) => [one.id, one.data.length]));
}"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of offline runs that the real SDK wrote: see make_wandb_runs.py."""
    folder = tmp_path_factory.mktemp("elsewhere")
    # Nothing of the caller's own settings for W&B counts.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    subprocess.run(
        [sys.executable, str(HERE / "make_wandb_runs.py"), str(folder)], check=True, timeout=200, env=environment
    )
    return folder


@pytest.fixture(scope="module")
def among(serve_runs: Any, made_runs: Path, elsewhere: Path) -> Iterator[Any]:
    """Returns `headway dash` over headway's runs and those of W&B."""
    with serve_runs(made_runs, "--wandb", str(elsewhere)) as server:
        yield server


@pytest.fixture(scope="module")
def exported(made_runs: Path, elsewhere: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns the address of the exported page of the same."""
    folder = tmp_path_factory.mktemp("export") / "page"
    command = [sys.executable, "-m", "headway", "dash", "--runs", str(made_runs), "--wandb", str(elsewhere)]
    subprocess.run([*command, "--export", str(folder)], check=True, capture_output=True, timeout=200)
    return (folder / "index.html").as_uri()


@pytest.fixture(params=["served", "exported"])
def site(request: pytest.FixtureRequest, look: Any) -> Any:
    """Returns a function that opens a page, of the server or from disk without a network."""
    is_export = request.param == "exported"
    start = request.getfixturevalue("exported") if is_export else request.getfixturevalue("among").url
    return lambda fragment, **more: look(start + fragment, offline=is_export, **more)


def wait_for_rows(page: Any, found: list[str]) -> None:
    page.wait_for_function(
        """found => {
            const rows = [...document.querySelectorAll('tbody tr[data-key]')].map((row) => row.dataset.key);
            return JSON.stringify(rows.sort()) === JSON.stringify(found);
        }""",
        arg=found,
    )


def row_of(page: Any, run: str) -> Any:
    return page.locator(f"tbody tr[data-key='{run}']")


def cell(page: Any, run: str, column: str) -> str:
    """Returns the text in a row's cell under a heading."""
    at = page.eval_on_selector_all(
        "thead th", "(all, key) => all.findIndex(one => one.dataset.column === key)", arg=column
    )
    return row_of(page, run).locator("> *").nth(at).inner_text()


def facts(page: Any, title: str) -> dict[str, str]:
    """Returns the names and values of a section of the overview."""
    section = page.locator(f"section.part:has(h2:text-is('{title}')) dl > div")
    pairs = section.evaluate_all("all => all.map(one => [one.children[0].innerText, one.children[1].innerText])")
    return dict(pairs)


# ---- the table -----------------------------------------------------------------------------------


def test_the_table_has_their_names_tags_states_and_metrics(site) -> None:
    page = site("#/runs?q=recipe=elsewhere&sort=id")
    keys = page.eval_on_selector_all("tbody tr[data-key]", "all => all.map(one => one.dataset.key)")
    assert keys == ["wandb-failed", "wandb-first", "wandb-killed"]
    assert cell(page, "wandb-first", "id").split("\n") == ["first try", "W&B"]
    assert row_of(page, "wandb-first").locator("td .tag").all_inner_texts() == ["theirs", "for the paper"]
    states = [cell(page, key, "state").strip() for key in keys]
    assert states == ["failed", "done", "died"]
    assert cell(page, "wandb-first", "metric") == "0.0625"
    assert cell(page, "wandb-first", "step") == str(NUM_STEPS - 1)
    assert int(cell(page, "wandb-killed", "metric")) > 1


def test_they_are_found_by_name_tag_and_setting_and_grouped_by_project(site) -> None:
    page = site("#/runs?q=" + "%22first%20try%22")
    assert page.locator("tbody tr[data-key]").count() == 1
    for words, found in (
        ('tags:"for the paper"', ["wandb-first"]),
        ("recipe=elsewhere depth>4", ["wandb-failed", "wandb-killed"]),
        ("optim.kind=sgd optim.lr=0.1 id:wandb", ["wandb-first"]),
    ):
        page.fill("input[aria-label='Filter runs']", words)
        wait_for_rows(page, found)
    page.fill("input[aria-label='Filter runs']", "id:wandb")
    wait_for_rows(page, ["wandb-failed", "wandb-first", "wandb-hostile", "wandb-killed"])
    page.select_option("label:has-text('Group') select", "recipe")
    page.wait_for_selector("tr.group")
    assert page.locator("tr.group button").all_inner_texts() == ["<i>project", "elsewhere"]
    assert page.locator("tr.group .count").all_inner_texts() == ["1", "3"]


# ---- a run's page --------------------------------------------------------------------------------


def test_the_overview_says_what_the_run_was(site) -> None:
    page = site(FIRST)
    assert page.inner_text("h1") == "first try"
    headline = dict(
        page.eval_on_selector_all("dl.headline > div", "all => all.map(one => [...one.children].map(e => e.innerText))")
    )
    assert (headline["val/loss"], headline["step"]) == ("0.0625", str(NUM_STEPS - 1))
    assert facts(page, "Settings") == {"optim.kind": "sgd", "optim.lr": "0.1", "depth": "3"}
    assert facts(page, "Run")["Project"] == "elsewhere"
    assert page.locator("section.part .tag").all_inner_texts() == ["theirs", "for the paper"]
    theirs = facts(page, "Weights & Biases")
    assert (theirs["group"], theirs["notes"], theirs["exit_code"]) == ("ablation", "the baseline", "0")
    assert theirs["files"].endswith('run-first.wandb"]')
    assert "" not in theirs.values()
    assert page.locator(".problems").count() == 0


def test_no_tab_is_empty_for_want_of_what_only_headway_writes(site) -> None:
    page = site(FIRST)
    names = page.eval_on_selector_all(".tabs a", "all => all.map(one => one.firstChild.textContent)")
    assert names == ["Overview", "Charts", "Logs", "Media", "Histograms"]
    for name in names:
        page.click(f".tabs a:has-text('{name}')")
        page.wait_for_selector(f"[data-ready] [data-tab={name.lower()}] > *")
        assert page.locator("[data-tab] > .message").count() == 0, name


def test_what_was_logged_is_drawn_as_curves(site, drawn) -> None:
    page = site(FIRST + "?tab=charts")
    for metric in ("train/loss", "val/loss", "wandb/accuracy"):
        page.locator(f"[data-metric='{metric}']").scroll_into_view_if_needed()
        drawn(page, metric)
        assert page.evaluate(LINES, metric) == {"run:wandb-first": NUM_STEPS}
    metrics = page.eval_on_selector_all("[data-metric]", "all => all.map(one => one.dataset.metric)")
    assert sorted(metrics) == ["train/loss", "val/loss", "wandb/accuracy"]
    told = page.get_attribute("[data-metric='val/loss'] .chart", "aria-label")
    assert told == "Line chart of val/loss over step. first try: last 0.0625, least 0.0625, most 2.5."
    page.click("button:text-is('Time')")
    page.wait_for_selector("[data-metric='val/loss'] .chart[aria-label*='over time']")
    drawn(page, "val/loss")


def test_pictures_and_tables_are_shown_step_by_step(site) -> None:
    page = site(FIRST + "?tab=media")
    page.wait_for_function("() => document.querySelector('.picture img')?.naturalWidth === 36")
    newest = page.get_attribute(".picture img", "src")
    assert page.inner_text("figure:has(.picture) output") == "step 39"
    page.locator("input[aria-label='Step of val/samples']").press("ArrowLeft")
    page.wait_for_function(
        "src => { const now = document.querySelector('.picture img'); return now.src !== src && now.naturalWidth > 0 }",
        arg=page.evaluate("src => new URL(src, location.href).href", newest),
    )
    assert page.inner_text("figure:has(.picture) output") == "step 26"
    page.wait_for_selector(".media-text tbody tr")
    assert page.locator(".media-text thead th").all_inner_texts() == ["wanted", "found"]
    assert page.locator(".media-text tbody td").all_inner_texts() == ["cat", "cat", "dog", "<b>cat</b>"]


def test_what_it_printed_is_its_log(site) -> None:
    page = site(FIRST + "?tab=logs")
    page.wait_for_function("() => document.querySelector('.log').textContent.includes('step 39')")
    lines = page.get_by_role("region", name="Log").inner_text().splitlines()
    assert [line for line in lines if line.startswith("step ")] == [
        f"step {step} <i>of {NUM_STEPS}</i>" for step in range(NUM_STEPS)
    ]


def test_histograms_are_a_map_of_bins_by_steps_and_a_single_one_is_bars(site) -> None:
    page = site(FIRST + "?tab=histograms")
    page.wait_for_selector("[data-histogram='weights/first'][data-steps='10'] canvas")
    option = """name => {
        const chart = echarts.getInstanceByDom(document.querySelector(`[data-histogram='${name}'] .chart`));
        const { series: [series], xAxis, yAxis } = chart.getOption();
        return { kind: series.type, data: series.data, across: xAxis[0].data, along: yAxis[0].data };
    }"""
    found = page.evaluate(option, "weights/first")
    assert found["kind"] == "heatmap"
    assert found["across"] == [*range(0, NUM_STEPS, 4)]
    assert len(found["along"]) == 64
    # What was drawn from a wider and wider normal distribution is so here.
    num_filled = [sum(1 for at, _, share in found["data"] if at == step) for step in (0, 9)]
    assert num_filled[0] < num_filled[1] / 2
    assert sum(share for at, _, share in found["data"] if at == 9) == pytest.approx(1.0)
    told = page.get_attribute("[data-histogram='weights/first'] .chart", "aria-label")
    assert told.startswith("Heat-map of how weights/first is spread in 64 bins from -")
    assert "over 10 steps. At step 36 the middle half lies between -0.5" in told
    page.wait_for_selector("[data-histogram=errors][data-steps='1'] canvas")
    single = page.evaluate(option, "errors")
    assert (single["kind"], single["data"]) == ("bar", [0.25, 0.5, 0.25])
    page.click("button[aria-label='Show errors as table']")
    assert page.locator("[data-histogram=errors] thead th").all_inner_texts() == ["step", "1 to 2", "2 to 3", "3 to 4"]
    assert page.locator("[data-histogram=errors] tbody td").all_inner_texts() == ["39", "0.25", "0.5", "0.25"]


def test_a_torn_file_is_shown_as_that_with_the_rows_before_it(site, drawn) -> None:
    page = site("#/run/wandb-killed")
    assert page.inner_text("#run-state").strip() == "died"
    assert "run-killed.wandb: torn at byte " in page.inner_text(".problems")
    assert facts(page, "Run")["Reason"] == "its file ends without the run's end"
    page.click(".tabs a:has-text('Charts')")
    drawn(page, "val/loss")
    (num_points,) = page.evaluate(LINES, "val/loss").values()
    assert 1 < num_points < NUM_STEPS


def test_a_failed_run_says_its_exit_code(site) -> None:
    page = site("#/run/wandb-failed")
    assert page.inner_text("#run-state").strip() == "failed"
    assert facts(page, "Run")["Reason"] == "exit code 1"


def test_nothing_of_theirs_is_offered_for_deletion(look, among) -> None:
    page = look(f"{among.url}#token={among.token}")
    # Where the reader may act at all, headway's own may be deleted.
    for run, offered in (("gpt-python-docs-0", 1), ("wandb-first", 0)):
        page.evaluate("run => { location.hash = '#/run/' + run }", run)
        page.wait_for_selector(f"[data-page=run][data-ready] a[href*='runs={run}']")
        assert page.locator("button.act:text-is('Delete')").count() == offered, run


# ---- beside headway's own ------------------------------------------------------------------------


def test_a_run_of_theirs_and_one_of_headways_share_a_chart(site, drawn) -> None:
    page = site("#/compare?runs=wandb-first,convnet-digits-0")
    drawn(page, "val/loss")
    lines = page.evaluate(LINES, "val/loss")
    assert set(lines) == {"run:wandb-first", "run:convnet-digits-0"}
    assert lines["run:wandb-first"] == NUM_STEPS
    assert lines["run:convnet-digits-0"] > 1
    assert page.locator(".legend .name").all_inner_texts() == ["first try", "convnet-digits-0"]
    differing = page.locator(".part tr:has(th:text-is('optim.kind'))")
    assert differing.locator("td").all_inner_texts() == ["sgd", "adamw"]
    page.locator("[data-metric='wandb/accuracy']").scroll_into_view_if_needed()
    drawn(page, "wandb/accuracy")
    assert page.evaluate(LINES, "wandb/accuracy") == {"run:wandb-first": NUM_STEPS}


def test_they_are_chosen_in_the_table_to_be_compared(look, among) -> None:
    page = look(among.url + "#/runs?q=id:wandb%20tags:theirs")
    page.check("input[aria-label='Choose wandb-first']")
    page.fill("input[aria-label='Filter runs']", "id=mlp-digits-0")
    page.check("input[aria-label='Choose mlp-digits-0']")
    page.click("#compare-chosen")
    page.wait_for_selector("[data-page=compare][data-ready]")
    assert sorted(page.locator(".legend .name").all_inner_texts()) == ["first try", "mlp-digits-0"]


# ---- what they call themselves, and where they are looked at -------------------------------------


def test_markup_in_their_names_is_text_wherever_it_is_shown(site) -> None:
    page = site("#/runs?q=alert%20id:wandb")
    assert page.inner_text("tbody .main-link") == HOSTILE
    assert page.locator("tbody td .tag").all_inner_texts() == ["<b>bold</b>"]
    page.click("tbody .main-link")
    page.wait_for_selector("[data-page=run][data-ready]")
    assert page.inner_text("h1") == HOSTILE
    assert facts(page, "Settings") == {"<b>depth</b>": HOSTILE}
    assert facts(page, "Weights & Biases")["notes"] == HOSTILE
    shown = {
        "charts": f".card-title:text-is('odd/{HOSTILE}')",
        "logs": f".log:has-text('{HOSTILE}')",
        "media": f".media-text td:text-is('{HOSTILE}')",
        "histograms": f".card-title:text-is('spread/{HOSTILE}')",
    }
    for tab, there in shown.items():
        page.click(f".tabs a[href$='tab={tab}']")
        page.wait_for_selector(there)
        page.wait_for_selector(f"[data-ready] [data-tab={tab}]")
    assert page.locator("main script, main b, main i").count() == 0


@pytest.mark.parametrize("tab", TABS)
def test_nothing_of_theirs_is_wider_than_a_phone(site, tab) -> None:
    page = site(f"{FIRST}?tab={tab}", size=PHONE, touch=True)
    page.wait_for_selector(f"[data-ready] [data-tab={tab}] > *")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_the_table_on_a_phone_has_their_name_state_and_metric(site) -> None:
    page = site("#/runs?q=recipe=elsewhere", size=PHONE, touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    row = row_of(page, "wandb-first")
    assert row.locator(".main-link").bounding_box()["width"] > 40
    shown = row.locator("> *:visible").all_inner_texts()
    assert [text.split("\n")[0].strip() for text in shown] == ["", "first try", "done", "0.0625"]
    right = row.locator("td:visible").last.bounding_box()
    assert right["x"] + right["width"] <= PHONE[0]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_their_pages(look, among, theme) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed here").Axe()
    page = look(among.url + "#/runs?q=id:wandb", theme=theme)
    found = []
    for tab in TABS:
        page.evaluate("hash => { location.hash = hash }", f"{FIRST}?tab={tab}")
        page.wait_for_selector(f"[data-ready] [data-tab={tab}] > *")
        results = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
        found += [(tab, one["id"]) for one in results if one["impact"] in ("serious", "critical")]
    assert found == []
