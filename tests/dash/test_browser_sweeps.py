"""A sweep in a real browser: brushed, seen by setting, rung by rung, and from whom a population learnt."""

from __future__ import annotations

from typing import Any


def asha(look: Any, served: Any) -> Any:
    page = look(served.url + "#/sweep/digits-asha")
    page.wait_for_selector("[data-chart=parallel] canvas")
    return page


def trials(page: Any) -> int:
    return page.locator(".trials tbody tr").count()


def axis_place(page: Any, dim: int) -> dict[str, float]:
    """Returns where an axis of the parallel coordinates is on the screen."""
    place = page.evaluate(
        """dim => {
            const box = document.querySelector('[data-chart=parallel] .chart');
            const parallel = echarts.getInstanceByDom(box).getModel().getComponent('parallel').coordinateSystem;
            const layout = parallel.getAxisLayout('dim' + dim);
            return { x: layout.position[0], low: layout.position[1], length: layout.axisExpandWidth,
                     height: parallel.getRect().height, top: parallel.getRect().y };
        }""",
        dim,
    )
    box = page.locator("[data-chart=parallel] .chart").bounding_box()
    return {"x": box["x"] + place["x"], "top": box["y"] + place["top"], "height": place["height"]}


def test_sweeps_are_listed_with_their_best(look, served) -> None:
    page = look(served.url + "#/sweeps")
    names = page.eval_on_selector_all("tbody .main-link", "all => all.map(one => one.innerText)")
    assert set(names) == {"digits-asha", "digits-pbt"}
    page.fill("input[aria-label='Filter sweeps']", "pbt")
    assert page.inner_text("tbody .main-link") == "digits-pbt"
    page.click("tbody .main-link")
    page.wait_for_selector("[data-page=sweep][data-ready]")


def test_brushing_an_axis_leaves_the_trials_between(look, served) -> None:
    page = asha(look, served)
    everything = trials(page)
    place = axis_place(page, 3)  # the result
    page.mouse.move(place["x"], place["top"] + place["height"] * 0.98)
    page.mouse.down()
    page.mouse.move(place["x"], place["top"] + place["height"] * 0.9, steps=4)
    page.mouse.move(place["x"], place["top"] + place["height"] * 0.75, steps=4)
    page.mouse.up()
    page.wait_for_function("all => document.querySelectorAll('.trials tbody tr').length < all", arg=everything)
    left = trials(page)
    assert 0 < left < everything
    assert page.inner_text("#trials-count") == f"{left} of {everything} trials"
    results = page.eval_on_selector_all(
        ".trials tbody tr > :nth-child(3)", "all => all.map(one => Number(one.innerText))"
    )
    every = page.evaluate("async () => (await Headway.api.get('api/sweep/digits-asha')).trials.map(one => one.result)")
    assert max(results) < max(every)
    assert sorted(round(one, 3) for one in results) == sorted(round(one, 3) for one in every)[:left]
    page.mouse.click(place["x"], place["top"] + 4)
    page.wait_for_function("all => document.querySelectorAll('.trials tbody tr').length === all", arg=everything)


def test_a_finger_on_an_axis_brushes_and_one_beside_it_scrolls(look, served, finger) -> None:
    page = look(served.url + "#/sweep/digits-asha", size=(360, 780), touch=True)
    page.wait_for_selector("[data-chart=parallel] canvas")
    everything = trials(page)
    fewer = "all => document.querySelectorAll('.trials tbody tr').length < all"
    place = axis_place(page, 3)
    # A finger is not as exact as a mouse.
    finger(page, (place["x"] + 12, place["top"] + place["height"] * 0.98), (0, -0.23 * place["height"]))
    page.wait_for_function(fewer, arg=everything)
    left = trials(page)
    finger(page, (place["x"], place["top"] + place["height"] * 0.86), (0, -0.36 * place["height"]))
    page.wait_for_function("left => document.querySelectorAll('.trials tbody tr').length !== left", arg=left)
    assert page.evaluate("scrollY") == 0
    finger(page, (place["x"], place["top"] + 4))
    page.wait_for_function("all => document.querySelectorAll('.trials tbody tr').length === all", arg=everything)
    between = (axis_place(page, 2)["x"] + place["x"]) / 2
    finger(page, (between, place["top"] + place["height"] * 0.9), (0, -0.7 * place["height"]))
    page.wait_for_function("() => scrollY > 80")
    assert trials(page) == everything


def test_trials_are_filtered_by_words_and_settings(look, served) -> None:
    page = asha(look, served)
    page.fill("input[aria-label='Filter trials']", "state=stopped optim.lr>0.01")
    rates = page.eval_on_selector_all(
        ".trials tbody tr",
        "all => all.map(one => [one.querySelector('.state').innerText, Number(one.children[5].innerText)])",
    )
    assert rates
    assert all(state == "stopped" and rate > 0.01 for state, rate in rates)


def test_any_setting_can_be_seen_against_the_result(look, served) -> None:
    page = asha(look, served)
    page.locator("[data-chart=scatter]").scroll_into_view_if_needed()
    page.wait_for_selector("[data-chart=scatter] canvas")
    page.select_option("[data-chart=scatter] select", "optim.lr")
    assert "optim.lr against val/loss" in page.get_attribute("[data-chart=scatter] .chart", "aria-label")
    chart = "echarts.getInstanceByDom(document.querySelector('[data-chart=scatter] .chart'))"
    assert page.evaluate(chart + ".getOption().xAxis[0].type") == "log"


def test_importance_is_said_in_numbers(look, served) -> None:
    page = asha(look, served)
    page.wait_for_selector(".importance tbody tr")
    shares = page.eval_on_selector_all(".importance td.numeric", "all => all.map(one => parseInt(one.innerText))")
    assert shares == sorted(shares, reverse=True)
    assert 97 <= sum(shares) <= 103


def test_rungs_say_who_was_stopped_when(look, served) -> None:
    page = asha(look, served)
    table = page.locator(".table-box[aria-label=Rungs] tbody tr")
    assert table.count() == 3
    steps, arrived, stopped, who = table.first.locator("th, td").all_inner_texts()
    assert steps == "30"
    assert int(arrived) > int(stopped) > 0
    assert len(who.split()) == int(stopped)
    page.locator("[data-chart=rungs]").scroll_into_view_if_needed()
    page.wait_for_selector("[data-chart=rungs] canvas")


def test_a_population_shows_who_took_weights_from_whom(look, served) -> None:
    page = look(served.url + "#/sweep/digits-pbt")
    page.locator("[data-chart=lineage]").scroll_into_view_if_needed()
    page.wait_for_selector("[data-chart=lineage] canvas")
    assert "from" in page.get_attribute("[data-chart=lineage] .chart", "aria-label")
    page.click("[data-chart=lineage] button:text-is('Table')")
    assert "optim.lr" in page.inner_text("[data-chart=lineage] tbody")
