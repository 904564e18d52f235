"""The page of one run in a real browser, tab by tab."""

from __future__ import annotations

from typing import Any

FIT = "gpt-python-docs-0"


def tab(look: Any, served: Any, name: str, run: str = FIT) -> Any:
    page = look(f"{served.url}#/run/{run}?tab={name}")
    page.wait_for_selector(f"[data-tab={name}]")
    return page


def test_the_overview_has_headline_settings_manifest_and_environment(look, served) -> None:
    page = look(f"{served.url}#/run/{FIT}")
    assert page.inner_text("dl.headline dt") == "val/loss"
    headings = page.eval_on_selector_all("h2", "all => all.map(one => one.innerText)")
    assert {"Run", "Settings", "Manifest"} <= set(headings)
    page.fill("input[aria-label='Find in settings']", "optim.lr")
    assert page.inner_text("[aria-label=Settings] dt") == "optim.lr"


def test_gradient_flow_is_a_map_of_layers_by_steps(look, served) -> None:
    page = tab(look, served, "health")
    page.wait_for_function("() => document.querySelector('[data-kind=grad_norm]')?.dataset.cells > 0")
    page.wait_for_selector("[data-kind=grad_norm] canvas")
    told = page.get_attribute("[data-kind=grad_norm] .chart", "aria-label")
    assert "4 layers" in told
    page.click("button[aria-label='Show Gradient flow as table']")
    assert page.inner_text("[data-kind=grad_norm] thead").split()[:2] == ["step", "layers.0"]


def test_a_run_without_health_says_so(look, served) -> None:
    page = tab(look, served, "health", "long")
    assert "records nothing of its layers" in page.inner_text(".message")


def test_the_time_of_a_step_is_stacked_by_what_takes_it(look, served) -> None:
    page = tab(look, served, "throughput")
    page.wait_for_selector("[data-chart=step-time] canvas")
    told = page.get_attribute("[data-chart=step-time] .chart", "aria-label")
    assert "data 1" in told
    assert "forward" in told
    names = page.eval_on_selector_all("dl.headline dt", "all => all.map(one => one.innerText)")
    assert {"samples a second", "tokens a second", "mfu"} <= set(names)


def test_validation_and_checkpoints_are_spread_over_the_steps_between(look, served) -> None:
    page = look(served.url + "#/jobs")
    parts = page.evaluate(
        """() => {
            const series = (x, y) => ({ x, y, min: null, rows: x.length });
            const times = [
                { part: "data", series: series([10, 20, 30], [1, 1, 1]) },
                { part: "checkpoint", series: series([20, 30], [5, 2]) },
            ];
            const found = Headway.throughput.partsOfStep(times, series([10, 20, 30], [3, 3, 4]));
            return Object.fromEntries(found.map((one) => [one.part, one.series.y]));
        }"""
    )
    assert parts == {"data": [1, 1, 1], "everything else": [2, 2, 3], "checkpoint": [0.25, 0.25, 0.2]}


def test_the_log_of_each_rank_can_be_read(look, served) -> None:
    page = tab(look, served, "logs")
    page.wait_for_function("() => document.querySelector('.log').textContent.length > 0")
    first = page.inner_text(".log")
    page.select_option("label:has-text('Rank') select", "1")
    page.wait_for_function(
        "before => { const now = document.querySelector('.log').textContent; return now && now !== before }", arg=first
    )
    assert "rank=1" in page.url


def test_a_log_is_followed_while_it_grows(look, served) -> None:
    log = served.runs / "running-now" / "logs" / "rank-0.log"
    page = tab(look, served, "logs", "running-now")
    assert page.is_checked("label:has-text('Follow') input")
    with log.open("a") as file:
        file.write("\x1b[32mepoch 7\x1b[0m <i>of 9</i>\n")
    page.wait_for_function("() => document.querySelector('.log').textContent.includes('epoch 7 <i>of 9</i>')")


def test_checkpoints_say_what_they_are_kept_for(look, served) -> None:
    page = tab(look, served, "checkpoints")
    kept = page.eval_on_selector_all("tbody .tag", "all => all.map(one => one.innerText)")
    assert set(kept) == {"best", "newest"}


def test_images_tables_and_texts_are_shown_and_markup_in_them_is_text(look, served) -> None:
    page = tab(look, served, "media")
    page.wait_for_function("() => document.querySelector('.picture img').naturalWidth > 0")
    page.wait_for_function("() => document.querySelector('.media-text tbody')")
    assert "<b>sample</b>" in page.inner_text(".media-text tbody")
    page.wait_for_function("() => document.querySelector('.media-text .log')")
    assert "<script>alert(1)</script>" in page.inner_text(".media-text .log")
    page.click(".picture")
    assert page.is_visible("dialog[open] img")


def test_the_recipe_can_be_copied(look, served) -> None:
    page = tab(look, served, "recipe")
    shown = page.inner_text(".yaml")
    assert shown.strip() == (served.runs / FIT / "recipe.yaml").read_text().strip()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("button:text-is('Copy')")
    page.wait_for_selector("button:text-is('Copied')")
    assert page.evaluate("() => navigator.clipboard.readText()") == (served.runs / FIT / "recipe.yaml").read_text()
