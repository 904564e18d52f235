"""Curves in a real browser: overlaid, zoomed with finer points fetched, under one cursor."""

from __future__ import annotations

from typing import Any

FITS = "convnet-digits-0,convnet-digits-1,convnet-digits-2"
LOSS = "[data-metric='train/loss']"
# What ECharts draws for the training loss; it leaves holes where a line was taken away.
SERIES = """(() => {
    const chart = echarts.getInstanceByDom(document.querySelector("[data-metric='train/loss'] .chart"));
    return chart.getOption().series.filter(Boolean);
})()"""


def drag(page: Any, selector: str, start: float, end: float) -> None:
    """Drags over a chart between two shares of its width."""
    page.locator(selector).scroll_into_view_if_needed()
    box = page.locator(selector + " .chart").bounding_box()
    height = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + start * box["width"], height)
    page.mouse.down()
    page.mouse.move(box["x"] + (start + end) / 2 * box["width"], height, steps=3)
    page.mouse.move(box["x"] + end * box["width"], height, steps=3)
    page.mouse.up()


def label(page: Any, selector: str = LOSS) -> str:
    return page.get_attribute(selector + " .chart", "aria-label")


def test_runs_are_overlaid_and_what_differs_between_them_is_listed(look, drawn, served) -> None:
    page = look(served.url + "#/compare?runs=" + FITS)
    drawn(page)
    assert label(page).startswith("Line chart of train/loss over step. convnet-digits-0: last ")
    assert all(run in label(page) for run in FITS.split(","))
    groups = page.eval_on_selector_all("details > summary", "all => all.map(one => one.firstChild.textContent)")
    assert groups[:2] == ["train", "val"]
    assert groups[-1] == "health"
    settings = page.eval_on_selector_all("section.part tbody th", "all => all.map(one => one.innerText)")
    assert "optim.lr" in settings
    assert "model.kind" not in settings


def test_a_run_can_be_hidden_and_taken_away(look, drawn, served) -> None:
    page = look(served.url + "#/compare?runs=" + FITS)
    drawn(page)
    page.click(".legend li:first-child button")
    assert page.get_attribute(".legend li:first-child button", "aria-pressed") == "false"
    again = look(page.url)
    assert again.get_attribute(".legend li:first-child button", "aria-pressed") == "false"
    page.click("button[aria-label='Take convnet-digits-0 away']")
    page.wait_for_function("() => document.querySelectorAll('.legend li').length === 2")
    assert "runs=convnet-digits-1,convnet-digits-2" in page.url


def test_zoom_asks_for_finer_points_and_a_double_click_shows_all_again(look, drawn, served) -> None:
    page = look(served.url + "#/run/long?tab=charts")
    drawn(page)
    before = page.get_attribute(LOSS, "data-points")
    with page.expect_request(lambda request: "/series" in request.url and "from=" in request.url) as asked:
        drag(page, LOSS, 0.5, 0.6)
    drawn(page)
    assert "names=" in asked.value.url
    begin, end = (float(part) for part in page.url.partition("range=")[2].partition("&")[0].split(".."))
    assert 0 < begin < end < 60_000
    assert (end - begin) < 60_000 / 4
    numbers = page.evaluate(SERIES + ".find(one => one.type === 'line').data.map(pair => pair[0])")
    assert begin - 50 <= numbers[0] <= numbers[-1] <= end + 50
    spacing = (numbers[-1] - numbers[0]) / (len(numbers) - 1)
    assert spacing < 60_000 / float(before) / 2
    page.dblclick(LOSS + " .chart")
    page.wait_for_function("() => !location.hash.includes('range')")
    assert page.is_disabled("#whole-range")
    page.fill("input[aria-label=From]", "100")
    page.fill("input[aria-label=To]", "200")
    page.keyboard.press("Tab")
    page.wait_for_function("() => location.hash.includes('range=100..200')")


def test_a_finger_along_the_axis_zooms_and_one_along_the_page_scrolls(look, drawn, served, finger) -> None:
    page = look(served.url + "#/run/long?tab=charts", size=(360, 780), touch=True)
    drawn(page)
    finger(page, on_loss(page, 0.6), (12, -180))
    page.wait_for_function("() => scrollY > 80")
    assert "range=" not in page.url
    assert page.locator(LOSS + " .zoom-shade").is_hidden()
    page.locator(LOSS).scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    finger(page, on_loss(page, 0.3), (120, 9))
    page.wait_for_function("() => location.hash.includes('range=')")
    begin, end = (float(part) for part in page.url.partition("range=")[2].partition("&")[0].split(".."))
    assert 0 < begin < begin + 20_000 < end < 60_000
    assert page.evaluate("scrollY") == before
    drawn(page)
    page.click("#whole-range")
    page.wait_for_function("() => !location.hash.includes('range')")


def on_loss(page: Any, share: float) -> tuple[float, float]:
    """Returns the point at a share of the width of the loss's chart, half-way up."""
    box = page.locator(LOSS + " .chart").bounding_box()
    return box["x"] + share * box["width"], box["y"] + box["height"] / 2


def test_a_tap_right_after_a_finger_has_zoomed_counts(look, drawn, served, finger) -> None:
    page = look(served.url + "#/run/long?tab=charts", size=(360, 780), touch=True)
    drawn(page)
    page.evaluate(
        """() => {
            window.left = 0; // moves of the finger that the browser may take for a scroll of its own
            window.zoomed = []; // whether the charts were zoomed when the finger was lifted
            window.addEventListener('touchmove', (event) => { window.left += event.defaultPrevented ? 0 : 1 });
            window.addEventListener('touchend', () => window.zoomed.push(location.hash.includes('range=')));
        }"""
    )
    box = page.locator("#whole-range").bounding_box()
    for turn in range(1, 5):
        finger(page, on_loss(page, 0.3), (120, 9))
        finger(page, (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2))
        page.wait_for_function("() => !location.hash.includes('range')")
        assert page.is_disabled("#whole-range")
        assert page.evaluate("window.left") == 0
        assert page.evaluate("window.zoomed") == [True, True] * turn
        drawn(page)


def test_a_band_shows_what_a_point_stands_for(look, drawn, served) -> None:
    page = look(served.url + "#/run/long?tab=charts")
    drawn(page)
    kinds = SERIES + ".map(one => one.type)"
    assert page.evaluate(kinds) == ["custom", "line"]
    page.uncheck("label:text-is('Band')")
    assert page.evaluate(kinds) == ["line"]


def test_axis_scale_and_smoothing_are_in_the_address(look, drawn, served) -> None:
    page = look(served.url + "#/run/gpt-python-docs-0?tab=charts")
    drawn(page)
    with page.expect_request(lambda request: "x=tokens" in request.url):
        page.click(".choice button:text-is('Tokens')")
    page.wait_for_selector(LOSS + " .chart[aria-label*='over tokens']")
    page.check("label:text-is('Log scale')")
    page.fill("input[aria-label=Smoothing]", "0.9")
    assert "x=tokens" in page.url
    assert "log=1" in page.url
    assert "smooth=0.9" in page.url
    again = look(page.url)
    drawn(again)
    assert again.evaluate(SERIES + ".length") == 2  # the raw one is faint behind
    assert again.is_checked("label:text-is('Log scale') input")


def test_one_cursor_goes_through_all_charts(look, drawn, served) -> None:
    page = look(served.url + "#/compare?runs=" + FITS)
    drawn(page)
    drawn(page, "train/accuracy")
    page.evaluate(
        """() => {
            window.heard = [];
            const other = document.querySelector("[data-metric='train/accuracy'] .chart");
            const hear = (event) => window.heard.push(event.axesInfo.length);
            echarts.getInstanceByDom(other).on('updateAxisPointer', hear);
        }"""
    )
    box = page.locator(LOSS + " .chart").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5, steps=4)
    page.wait_for_function("() => window.heard.some(many => many > 0)")
    assert page.inner_text(LOSS + " .tip").startswith("step")
    assert page.locator("[data-metric='train/accuracy'] .tip").is_hidden()


def test_the_cursor_reads_off_every_run_though_points_of_a_long_one_lie_elsewhere(look, drawn, served) -> None:
    page = look(served.url + "#/compare?runs=convnet-digits-0,long&range=0..3000")
    drawn(page)
    box = page.locator(LOSS + " .chart").bounding_box()
    for share in (0.2, 0.205, 0.21):  # within the 300 steps that both have
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] * 0.5)
        page.wait_for_selector(LOSS + " .tip-name")
        names = page.eval_on_selector_all(LOSS + " .tip-name", "all => all.map(one => one.textContent)")
        assert names == ["convnet-digits-0", "long"]


def test_a_chart_can_be_read_as_a_table(look, drawn, served) -> None:
    page = look(served.url + "#/run/convnet-digits-0?tab=charts")
    drawn(page, "val/loss")
    page.click("button[aria-label='Show val/loss as table']")
    table = page.locator("[data-metric='val/loss'] .chart-table table")
    assert table.locator("thead").inner_text().split() == ["step", "convnet-digits-0"]
    assert table.locator("tbody tr").count() > 5
