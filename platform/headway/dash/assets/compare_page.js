/* Some runs side by side: their curves over each other, and the settings in which they differ. */
"use strict";
(function (Headway) {
  const { h, fill, refill } = Headway.dom;
  const { parts } = Headway;
  const { link } = Headway.address;

  async function answer(ids, signal) {
    if (!Headway.api.exported) return Headway.api.get("api/compare", { runs: ids.join(",") }, signal);
    const found = await Promise.all(ids.map((id) => Headway.api.get("api/run/" + id).catch(() => null)));
    return { ...compared(found.filter(Boolean)), missing: ids.filter((_, at) => !found[at]), left_out: [] };
  }

  /** Returns what /api/compare answers, from what each run answers. */
  function compared(runs) {
    const names = [...new Set(runs.flatMap((run) => Object.keys(run.recipe)))].sort();
    const rows = names.map((name) => ({ name, values: runs.map((run) => run.recipe[name] ?? null) }));
    const differs = (row) => new Set(row.values.map((value) => JSON.stringify(value))).size > 1;
    return {
      runs: runs.map((run) => run.row), differences: rows.filter(differs), same: rows.filter((row) => !differs(row)).length,
      metrics: [...new Set(runs.flatMap((run) => run.metrics))],
    };
  }

  function differencesTable(found) {
    const columns = [
      { key: "name", label: "Setting", rowHead: true, cell: (row) => row.name },
      ...found.runs.map((run, at) => ({
        key: String(at), label: run.title || run.id, value: (row) => row.values[at], cell: (row) => h("span.mono", null, Headway.format.named(row.name, row.values[at])),
      })),
    ];
    const table = Headway.table.make({ columns, caption: "Settings that differ", keyOf: (row) => row.name, sort: "name" });
    table.show(found.differences);
    const same = found.same ? h("p.note", null, Headway.format.count(found.same, "other setting") + (found.same === 1 ? " is" : " are") + " the same.") : null;
    return found.differences.length ? [table.element, same] : [parts.message("They differ in no setting."), same];
  }

  function legend(runs, rows, draw, remove) {
    return h("ul.legend", { "aria-label": "Runs" }, runs.map((run, at) => {
      const mark = h("span.line-mark", { "aria-hidden": "true", class: "dash-" + Math.floor(run.at / 8) % 3 });
      const paint = () => mark.style.setProperty("--mark", run.colour());
      paint();
      const eye = h("button", { type: "button", "aria-pressed": String(!run.hidden), title: "Show or hide its curves", onclick: () => {
        run.hidden = !run.hidden;
        eye.setAttribute("aria-pressed", String(!run.hidden));
        Headway.address.change({ hide: runs.filter((one) => one.hidden).map((one) => one.id).join(",") });
        draw();
      } }, mark, h("span.name", null, run.label));
      const row = rows[at];
      return h("li", null, eye, parts.state(row.state, row.reason), h("span.note", null, row.metric_name ? row.metric_name + " " + Headway.format.number(row.metric) : ""),
        h("a", { href: link("run", run.id), "aria-label": "Open " + run.id }, "Open"),
        h("button.quiet", { type: "button", "aria-label": "Take " + run.id + " away", onclick: () => remove(run.id) }, "Remove"));
    }));
  }

  /** Says which of the runs that the address names are not compared, and why. */
  function drawNotes(box, found, without) {
    const { missing, left_out: leftOut } = found;
    const away = h("button.quiet", { type: "button", onclick: without }, "Go on without");
    refill(box, missing.length ? h("p.message.bad", { role: "alert" }, missing.join(", ") + (missing.length === 1 ? " is" : " are") + " no longer in the runs folder. ", away) : null,
      leftOut.length ? parts.message(`So many runs are too many for one chart: ${leftOut.join(", ")} ${leftOut.length === 1 ? "is" : "are"} left out.`, "bad") : null);
  }

  function adder(ids, go) {
    const list = h("datalist", { id: "other-runs" });
    const input = h("input", { type: "search", list: "other-runs", placeholder: "Add a run", "aria-label": "Add a run", autocomplete: "off",
      oninput: Headway.dom.debounce(suggest, 150), onchange: () => input.value && known.has(input.value) && go([...ids, input.value]) });
    const known = new Set();
    async function suggest() {
      if (known.has(input.value)) return go([...ids, input.value]);
      const all = Headway.api.exported
        ? Headway.query.answer(await Headway.api.get("api/runs", { all: 1 }), { q: input.value, size: 20 })
        : await Headway.api.get("api/runs", { q: input.value, size: 20 });
      const others = all.rows.filter((row) => !ids.includes(row.id));
      others.forEach((row) => known.add(row.id));
      return fill(list, others.map((row) => h("option", { value: row.id })));
    }
    return [input, list];
  }

  /** Shows the page that compares the runs which the address names. */
  async function show(page) {
    const ids = (page.params.runs || "").split(",").filter(Boolean);
    const go = (wanted) => {
      const { params } = Headway.address.now();
      location.hash = link("compare", "", { ...params, runs: wanted.join(",") });
    };
    const head = h("div.page-head", null, h("h1", null, "Compare"), adder(ids, go));
    if (!ids.length) {
      fill(page.root, head, parts.message("Choose runs in the table of runs, or add one by its name."));
      return;
    }
    const found = await answer(ids, page.signal);
    const hidden = (page.params.hide || "").split(",");
    const runs = found.runs.map((row, at) => ({
      id: row.id, label: row.title || row.id, at, hidden: hidden.includes(row.id), colour: () => Headway.charts.palette(at), metrics: row.metrics || [...found.metrics],
    }));
    const board = Headway.curveBoard.make(page, runs);
    const notes = h("div");
    const legendBox = h("div.legend-box");
    const drawLegend = () => refill(legendBox, legend(runs, found.runs, board.draw, (gone) => go(ids.filter((id) => id !== gone))));
    const drawAll = () => {
      drawNotes(notes, found, () => go(ids.filter((id) => !found.missing.includes(id))));
      drawLegend();
    };
    drawAll();
    page.onLeave(Headway.theme.onChange(drawLegend));
    fill(page.root, head, notes, legendBox, board.element, parts.section("Settings that differ", differencesTable(found)));

    function change({ changed, gone }) {
      if (changed.some((row) => found.missing.includes(row.id))) return Headway.reopen(); // it is back
      const fresh = new Map(changed.map((row) => [row.id, row]));
      found.runs = found.runs.map((row) => ({ ...row, ...fresh.get(row.id) }));
      found.missing.push(...gone.filter((id) => runs.some((run) => run.id === id)));
      return drawAll();
    }

    page.onLeave(Headway.live.watch({ runs: ids, table: true }, {
      rows: ({ run, series }) => board.grow(run, series), reset: board.reload, table: change, back: board.reload,
    }));
  }

  Headway.pages = { ...Headway.pages, compare: show };
})((window.Headway = window.Headway || {}));
