"""Every page in a real browser: as a screen reader meets it, on a phone, in the dark."""

from __future__ import annotations

from typing import Any

import pytest

PAGES = [
    "#/runs?q=digits-0",
    "#/runs?q=python-docs-00001&group=recipe",
    "#/compare?runs=convnet-digits-0,convnet-digits-1",
    "#/compare",
    *(
        f"#/run/gpt-python-docs-0?tab={tab}"
        for tab in ("overview", "charts", "health", "throughput", "logs", "checkpoints", "media", "recipe")
    ),
    "#/run/torn-metrics",
    "#/sweeps",
    "#/sweep/digits-asha",
    "#/sweep/digits-pbt",
    "#/jobs",
    "#/nowhere",
]


def all_there(page: Any, address: str) -> None:
    """Goes to a page and waits for what it draws."""
    page.evaluate("hash => { location.hash = hash }", address)
    name = address.removeprefix("#/").partition("?")[0].partition("/")[0]
    page.evaluate("() => new Promise(requestAnimationFrame)")
    page.wait_for_selector(f"[data-page={name}][data-ready]")
    page.wait_for_function("() => !document.querySelector('.is-loading')")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(look, served, theme) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed here").Axe()
    page = look(f"{served.url}#token={served.token}", theme=theme)
    # What the themes differ in is colour.
    rules = {"resultTypes": ["violations"], **({"runOnly": ["color-contrast"]} if theme == "dark" else {})}
    found = []
    for address in PAGES:
        all_there(page, address)
        assert page.get_attribute("html", "data-theme") == theme
        found += [(address, *one) for one in serious(axe.run(page, options=rules))]
    page.keyboard.press("?")
    found += [("keys", *one) for one in serious(axe.run(page, options=rules))]
    assert found == []


def serious(results: Any) -> list[tuple[str, str]]:
    """Returns what axe counts as serious or critical: the rule and the first element."""
    bad = [one for one in results.response["violations"] if one["impact"] in ("serious", "critical")]
    return [(one["id"], one["nodes"][0]["html"]) for one in bad]


def test_nothing_is_wider_than_a_phone(look, served) -> None:
    page = look(served.url, size=(360, 780))
    for address in PAGES:
        all_there(page, address)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, address


def test_dark_and_light_follow_the_system_until_the_reader_chooses(look, served) -> None:
    page = look(served.url, theme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.emulate_media(color_scheme="light")
    page.wait_for_function("() => document.documentElement.dataset.theme === 'light'")
    light = page.evaluate(background)
    assert sum(map(int, light[4:-1].split(","))) > 600 > 200 > sum(map(int, dark[4:-1].split(",")))
    page.click("#theme")
    assert page.evaluate(background) == dark
    page.reload()
    page.wait_for_selector("[data-ready]")
    assert page.evaluate(background) == dark


def test_a_page_that_is_not_there_says_so(look, served) -> None:
    page = look(served.url + "#/run/no-such-run", expect="404")
    assert "no-such-run" in page.inner_text(".message.bad")
