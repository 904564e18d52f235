"""The table of runs in a real browser: filled, filtered, sorted, grouped, paged, gone through by keys."""

from __future__ import annotations

import re
from typing import Any

import pytest

KEYS = "[...document.querySelectorAll('tbody tr[data-key]')].map(row => row.dataset.key)"
HOSTILE = '<script>alert(1)< img src=x onerror=alert(2)> & "quotes"'


def rows(page: Any) -> list[str]:
    return page.evaluate(KEYS)


def settled(page: Any, expression: str, argument: Any = None) -> None:
    page.wait_for_function(expression, arg=argument)


def column(page: Any, label: str) -> list[str]:
    labels = page.eval_on_selector_all("thead th", "all => all.map(one => one.innerText.replace(/[↑↓]/, '').trim())")
    place = labels.index(label) + 1
    return page.eval_on_selector_all(
        f"tbody tr[data-key] > :nth-child({place})", "all => all.map(one => one.innerText)"
    )


def test_the_table_fills_with_a_page_of_runs(look, served) -> None:
    page = look(served.url + "#/runs")
    assert len(rows(page)) == 50
    assert page.inner_text(".page-head [role=status]").endswith(" runs")
    assert page.title().startswith("Runs")
    states = page.query_selector_all("tbody .state")
    assert all(state.inner_text() for state in states)
    assert all(state.query_selector("svg path") for state in states)


def test_what_is_no_run_is_said_and_what_cannot_be_read_is_shown_as_such(look, served) -> None:
    page = look(served.url + "#/runs?q=state%3Dunreadable&columns=id,state,reason")
    assert "holiday-photos" in rows(page)
    assert "notes.txt" in page.inner_text(".foreign")
    torn = look(served.url + "#/run/torn-metrics")
    assert "torn" in torn.inner_text(".problems")
    assert look(served.url + "#/run/half-written").inner_text("h1") == "half-written"


def test_the_usual_columns_fit_a_desktop_however_long_a_name(look, served) -> None:
    page = look(served.url + "#/runs?q=onerror")
    assert rows(page) == [HOSTILE]
    name, where = page.locator("tbody .main-link"), page.locator("tbody .where span")
    for cell in (name, where):
        cell.evaluate("cell => { cell.textContent = 'long-'.repeat(20) }")
    width = page.evaluate(
        "() => [...document.querySelectorAll('.runs-box .table-box')].map(box => box.scrollWidth - box.clientWidth)"
    )
    assert width == [0]
    assert where.get_attribute("title")


def test_a_filter_is_in_the_address_and_a_sent_link_shows_the_same(look, served) -> None:
    page = look(served.url + "#/runs")
    page.fill("input[aria-label='Filter runs']", "recipe=gpt-python-docs optim.lr>0.01")
    settled(page, "() => document.querySelector('[role=status]').textContent.includes(' of ')")
    page.click("th[data-column=metric] button")
    settled(page, "() => document.querySelector('th[data-column=metric]').getAttribute('aria-sort') === 'descending'")
    settled(page, "() => location.hash.includes('sort=-metric')")
    page.wait_for_timeout(300)
    found = rows(page)
    assert found
    assert set(column(page, "Recipe")) == {"gpt-python-docs"}
    other = look(page.url)
    assert rows(other) == found
    assert other.input_value("input[aria-label='Filter runs']") == "recipe=gpt-python-docs optim.lr>0.01"


def test_headings_sort_and_say_so(look, served) -> None:
    page = look(served.url + "#/runs?q=recipe:digits")
    page.click("th[data-column=duration_s] button")
    settled(page, "() => document.querySelector('th[data-column=duration_s][aria-sort=descending]')")
    page.click("th[data-column=id] button")
    settled(page, "() => document.querySelector('th[data-column=id][aria-sort=ascending]')")
    settled(page, f"() => {{ const all = {KEYS}; return all[0] < all[9] }}")
    names = rows(page)
    assert names == sorted(names, key=str.lower)


def test_groups_have_headings_and_a_click_on_one_shows_it_alone(look, served) -> None:
    page = look(served.url + "#/runs?group=recipe")
    headings = page.eval_on_selector_all("tr.group", "all => all.map(one => one.innerText)")
    assert any("convnet-digits" in heading for heading in headings)
    page.click("tr.group button:text-is('convnet-digits')")
    settled(page, "() => !document.querySelector('tr.group')")
    assert page.input_value("input[aria-label='Filter runs']") == "recipe=convnet-digits"
    assert set(column(page, "Recipe")) == {"convnet-digits"}


def test_any_setting_and_metric_can_be_a_column(look, served) -> None:
    page = look(served.url + "#/runs?q=convnet")
    page.click("button:text-is('Columns')")
    page.fill("input[aria-label='Find a column']", "optim.lr")
    page.check("dialog label:text-is('optim.lr')")
    page.keyboard.press("Escape")
    settled(page, "() => document.querySelector('th[data-column=\"optim.lr\"]')")
    settled(page, "() => document.querySelector('tbody tr td:last-child')?.textContent.length > 2")
    assert "columns=" in page.url
    assert all(re.fullmatch(r"[\d.e-]+", value) for value in column(page, "optim.lr"))


def test_pages_follow_each_other(look, served) -> None:
    page = look(served.url + "#/runs?sort=id")
    first = rows(page)
    page.click(".pager button:text-is('Next')")
    settled(page, "first => document.querySelector('tbody tr[data-key]').dataset.key !== first", first[0])
    second = rows(page)
    assert not set(first) & set(second)
    assert "page=1" in page.url
    assert page.is_enabled(".pager button:text-is('Previous')")


def test_the_keyboard_alone_is_enough(look, served) -> None:
    page = look(served.url + "#/runs?sort=id")
    page.keyboard.press("/")
    page.keyboard.type("convnet-digits-00")
    settled(page, "() => document.querySelector('tbody tr[data-key]').dataset.key.startsWith('convnet')")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("x")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("x")
    chosen = rows(page)[:2]
    assert page.inner_text(".chosen-bar").startswith("2 runs")
    page.keyboard.press("?")
    assert "next and previous row" in page.inner_text("dialog[open]")
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    page.wait_for_selector("[data-page=compare][data-ready]")
    assert page.eval_on_selector_all(".legend .name", "all => all.map(one => one.textContent)") == chosen
    page.keyboard.press("g")
    page.keyboard.press("r")
    page.wait_for_selector("[data-page=runs][data-ready]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-page=run][data-ready]")
    page.keyboard.press("]")
    page.wait_for_selector("[data-page=run] [data-tab=charts]")


def test_a_sent_link_has_its_senders_columns_and_not_its_readers(look, served) -> None:
    page = look(served.url + "#/runs")
    page.click("button:text-is('Columns')")
    page.uncheck("dialog label:text-is('Strategy')")
    page.keyboard.press("Escape")
    settled(page, "() => !document.querySelector('th[data-column=strategy]')")
    page.click(".pages a:text-is('Sweeps')")
    page.click(".pages a:text-is('Runs')")
    settled(page, "() => document.querySelector('th[data-column=recipe]')")
    assert page.query_selector("th[data-column=strategy]") is None  # kept as this reader's choice
    assert look(page.url).query_selector("th[data-column=strategy]") is None
    page.goto(served.url + "#/runs?q=convnet")
    settled(page, "() => document.querySelector('th[data-column=strategy]')")


def test_a_link_to_a_page_of_the_table_that_is_no_more_goes_to_the_last(look, served) -> None:
    page = look(served.url + "#/runs?sort=id&page=99")
    settled(page, "() => document.querySelector('tbody tr[data-key]')")
    assert "page=99" not in page.url
    assert page.is_disabled(".pager button:text-is('Last')")


def test_the_way_back_leads_to_where_one_was(look, served) -> None:
    page = look(served.url + "#/runs")
    page.fill("input[aria-label='Filter runs']", "convnet-digits-00")
    settled(page, "() => location.hash.includes('q=convnet')")
    settled(page, f"() => {KEYS}.every((key) => key.startsWith('convnet'))")
    found = rows(page)
    page.locator("tbody .main-link").last.scroll_into_view_if_needed()
    page.evaluate("() => window.scrollTo(0, document.documentElement.scrollHeight)")
    place = page.evaluate("scrollY")
    assert place > 100
    page.click("tbody tr:last-child .main-link")
    page.wait_for_selector("[data-page=run][data-ready]")
    page.click(".tabs a:text-is('Recipe')")
    page.wait_for_selector("[data-page=run][data-ready] [data-tab=recipe]")
    page.go_back()
    page.wait_for_selector("[data-page=run][data-ready] [data-tab=overview]")
    page.go_back()
    page.wait_for_selector("[data-page=runs][data-ready]")
    assert rows(page) == found
    assert page.evaluate("scrollY") == place
    page.go_forward()
    page.wait_for_selector("[data-page=run][data-ready] [data-tab=overview]")
    page.reload()
    page.wait_for_selector("[data-page=run][data-ready] [data-tab=overview]")


def test_the_focus_stays_on_what_was_pressed(look, served) -> None:
    page = look(served.url + "#/runs?sort=id")
    focused = "document.activeElement.innerText.trim()"
    page.focus(".choice button:has-text('failed')")
    page.keyboard.press("Enter")
    settled(page, "() => document.querySelector('[role=status]').textContent.includes(' of ')")
    assert page.evaluate(focused) == "failed"
    page.keyboard.press("Enter")
    settled(page, "() => !document.querySelector('[role=status]').textContent.includes(' of ')")
    page.focus(".pager button:text-is('Next')")
    page.keyboard.press("Enter")
    settled(page, "() => location.hash.includes('page=1')")
    settled(page, "() => document.querySelector('.pager span').textContent.startsWith('51')")
    assert page.evaluate(focused) == "Next"
    page.focus("label:has-text('Group') select")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("tr.group")
    assert page.evaluate("document.activeElement.tagName") == "SELECT"


def test_who_hears_the_page_is_told_where_a_link_led(look, served) -> None:
    page = look(served.url + "#/runs?q=convnet-digits-0")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-page=run][data-ready]")
    settled(page, "() => document.getElementById('announce').textContent.startsWith('convnet-digits-0')")
    assert page.evaluate("document.activeElement.id") == "main"


@pytest.mark.parametrize(
    "wanted",
    [
        {"q": "convnet -state=done"},
        {"q": "optim.lr>0.01 val/loss<0.5", "sort": "val/loss"},
        {"q": "best:val/loss<0.2 state:o", "sort": "-optim.lr"},
        {"q": "tags:made", "group": "strategy", "sort": "id"},
        {"q": 'tags="made, set-1"', "sort": "id"},
        {"q": '"img src" recipe:onerror'},
        {"q": "trainer.max_steps=300", "group": "recipe", "sort": "-metric"},
        {"sort": "tags"},
    ],
    ids=str,
)
def test_the_page_filters_and_sorts_as_the_server_does(look, served, wanted) -> None:
    """In an export the page does it: the same rows in the same order."""
    page = look(served.url + "#/jobs")
    ours, theirs = page.evaluate(
        """async (wanted) => {
            const ask = (params) => Headway.api.get("api/runs", params);
            const own = Headway.query.answer(await ask({ all: 1 }), { ...wanted, size: 200 });
            const server = await ask({ ...wanted, size: 200 });
            const groups = (answer) => (answer.groups || []).map((one) => [one.key, one.count]);
            const brief = (answer) => [answer.matched, answer.rows.map((row) => row.id), groups(answer)];
            return [brief(own), brief(server)];
        }""",
        wanted,
    )
    assert ours[0] == theirs[0]
    assert ours[1] == theirs[1]
    assert ours[2] == theirs[2]


def test_a_name_that_is_markup_does_nothing(look, served) -> None:
    page = look(served.url + "#/runs?q=onerror")
    assert rows(page) == [HOSTILE]
    assert page.inner_text("tbody .main-link") == HOSTILE
    page.click("tbody .main-link")
    page.wait_for_selector("[data-page=run][data-ready]")
    assert page.inner_text("h1") == HOSTILE
    for tab in ("charts", "health", "media", "logs", "recipe"):
        page.click(f".tabs a[href*='tab={tab}']")
        page.wait_for_selector(f"[data-ready] [data-tab={tab}]")
    assert page.query_selector("main script, main img[src='x']") is None
