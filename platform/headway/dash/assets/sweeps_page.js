/* All sweeps, and the page of one. */
"use strict";
(function (Headway) {
  const { h, fill, refill, throttle } = Headway.dom;
  const { duration, number, value } = Headway.format;
  const { parts } = Headway;
  const { link } = Headway.address;
  const { finite } = Headway.sweepSpace;

  function counts(row) {
    const share = (many) => ({ width: (100 * many) / Math.max(1, row.trials) + "%" });
    const bar = h("span.bar", { "aria-hidden": "true" }, h("span.bar-part", { style: share((row.done || 0) + (row.stopped || 0) + (row.failed || 0)) }));
    return h("span.progress", null, bar, `${(row.done || 0) + (row.stopped || 0) + (row.failed || 0)} / ${row.trials}`);
  }

  const LIST = [
    { key: "id", label: "Sweep", rowHead: true, cell: (row) => h("a.main-link", { href: link("sweep", row.id) }, row.id) },
    { key: "state", label: "State", cell: (row) => parts.state(row.state, row.reason) },
    { key: "trials", label: "Trials", numeric: true, cell: counts },
    { key: "running", label: "Running", numeric: true, hide: "phone" },
    { key: "stopped", label: "Stopped early", numeric: true, hide: "phone" },
    { key: "failed", label: "Failed", numeric: true, hide: "phone" },
    { key: "best", label: "Best", numeric: true, value: (row) => bestOf(row), cell: (row) => number(bestOf(row)) },
    { key: "metric", label: "Metric", hide: "phone" },
    { key: "searcher", label: "Searcher", hide: "narrow" },
    { key: "scheduler", label: "Scheduler", hide: "narrow" },
    { key: "started", label: "Started", numeric: true, hide: "narrow", cell: (row) => Headway.runsColumns.when(row.started) },
  ];

  function bestOf(row) {
    const { best } = row;
    return best !== null && typeof best === "object" ? best.value ?? best.result ?? null : best;
  }

  /** Shows the page of all sweeps. */
  async function list(page) {
    const table = Headway.table.make({ columns: LIST, caption: "Sweeps", keyOf: (row) => row.id, ...sortInAddress(page, "-started") });
    const summary = h("p.note");
    const problem = h("div");
    let all = [];
    const filter = h("input", { type: "search", placeholder: "Filter", "aria-label": "Filter sweeps", value: page.params.q || "", oninput: () => {
      Headway.address.change({ q: filter.value });
      draw();
    } });
    function draw() {
      const words = filter.value.toLowerCase().split(/\s+/);
      const shown = all.filter((row) => words.every((word) => [row.id, row.state, row.metric, row.searcher, row.scheduler].join(" ").toLowerCase().includes(word)));
      table.show(shown);
      summary.textContent = Headway.format.count(shown.length, "sweep");
      fill(problem, all.length ? null : parts.message("No sweeps here yet. `headway sweep RECIPE` makes one."));
    }
    async function load() {
      all = (await Headway.api.get("api/sweeps", null, page.signal)).sweeps;
      draw();
    }
    fill(page.root, h("div.page-head", null, h("h1", null, "Sweeps"), summary), h("div.toolbar", null, filter), problem, table.element);
    await load();
    refresh(page, load, () => true);
  }

  /** Loads again after changes that concern(changes) says are its own, and after a while in which none were heard. */
  function refresh(page, load, concern) {
    const again = throttle(page, () => load().catch(() => null), 1500);
    page.onLeave(Headway.live.watch({ table: true }, { table: (changes) => concern(changes) && again(), back: again }));
  }

  /** Returns the options with which a table has its sort from the address and keeps it there. */
  function sortInAddress(page, usual) {
    return { sort: page.params.sort || usual, sorted: (sort) => Headway.address.change({ sort: sort === usual ? "" : sort }) };
  }

  function trialColumns(sweep) {
    return [
      { key: "number", label: "Trial", numeric: true, rowHead: true, cell: (row) => h("a.main-link", { href: link("run", row.run) }, row.number) },
      { key: "state", label: "State", cell: (row) => parts.state(row.state, row.reason) },
      { key: "result", label: sweep.metric || "Result", numeric: true, value: (row) => (finite(row.result) ? row.result : null), cell: (row) => number(row.result) },
      ...sweep.axes.map((axis) => ({ key: "values." + axis.path, label: axis.path, numeric: axis.kind !== "choice", hide: "phone", value: (row) => row.values[axis.path] ?? null, cell: (row) => value(row.values[axis.path]) })),
      { key: "steps", label: "Steps", numeric: true, hide: "phone", cell: (row) => number(row.steps) },
      { key: "rung", label: "Rung", numeric: true, hide: "narrow", cell: (row) => number(row.rung) },
      { key: "time", label: "Time", numeric: true, hide: "narrow", value: (row) => (row.ended && row.started ? row.ended - row.started : null), cell: (row) => (row.ended && row.started ? duration(row.ended - row.started) : "–") },
    ];
  }

  function headline(sweep) {
    const many = (state) => sweep.trials.filter((trial) => trial.state === state).length;
    const found = sweep.trials.filter((trial) => finite(trial.result)).sort((one, other) => (sweep.mode === "max" ? -1 : 1) * (one.result - other.result))[0];
    const figures = [
      ["best " + (sweep.metric || "result"), found ? h("a", { href: link("run", found.run) }, number(found.result)) : null],
      ["trials", sweep.trials.length], ["done", many("done")], ["running", many("running")], ["stopped early", many("stopped")], ["failed", many("failed")],
      ["searcher", sweep.section && sweep.section.searcher], ["scheduler", sweep.section && sweep.section.scheduler],
    ].filter(([, text]) => text !== null && text !== undefined && text !== "");
    return h("dl.headline", null, figures.map(([name, text]) => h("div", null, h("dt", null, name), h("dd", null, typeof text === "object" && !(text instanceof Node) ? value(text.kind || text) : text))));
  }

  /** The table of trials: those that the filter's words and the brush leave. */
  function trialsPart(page, sweepNow) {
    let chosen = null;
    const usual = sweepNow().mode === "max" ? "-result" : "result";
    const table = Headway.table.make({ columns: trialColumns(sweepNow()), caption: "Trials", keyOf: (row) => String(row.number), ...sortInAddress(page, usual) });
    const summary = h("span.note", { role: "status", id: "trials-count" });
    const filter = h("input", { type: "search", placeholder: "Filter: words, state=done, optim.lr<0.01", "aria-label": "Filter trials", value: page.params.q || "", oninput: () => {
      Headway.address.change({ q: filter.value });
      draw();
    } });
    function draw() {
      const rows = sweepNow().trials.map((trial) => ({ ...trial, id: trial.run, recipe: "", tags: [] }));
      const shown = Headway.query.filter(rows, filter.value).filter((trial) => !chosen || chosen.has(trial.number));
      table.show(shown);
      summary.textContent = shown.length === rows.length ? Headway.format.count(rows.length, "trial") : `${shown.length} of ${Headway.format.count(rows.length, "trial")}`;
    }
    draw();
    const element = h("section.part.trials", null, h("div.part-head", null, h("h2", null, "Trials"), summary, filter), table.element);
    return { element, update: draw, choose: (set) => ((chosen = set), draw()) };
  }

  function stopButton(sweep) {
    if (sweep.state !== "running") return null;
    return Headway.actions.button({ label: "Stop", path: "api/sweep/" + sweep.id + "/stop", title: "Stop this sweep?",
      what: `${sweep.id} will stop: its running trials save their position and end. \`headway sweep --resume ${sweep.id}\` goes on.` });
  }

  /**
   * What a sweep's page is put together from, each as soon as there is something to show: trials begin, results and
   * rungs come while the page is open. Returns {pieces(), draw()}.
   */
  function story(page, sweepNow, trials) {
    const { sweepSpace, sweepStory } = Headway;
    const there = new Map();
    const [first, cards, last] = [h("div.lead"), h("div.cards"), h("div.stack")];
    const importance = h("figure.card", { "data-chart": "importance" });
    const brush = (set) => [trials, there.get("scatter")].forEach((one) => one.choose(set));
    const wanted = [
      ["scatter", (sweep) => sweep.axes.length && sweep.trials.length, () => sweepSpace.scatter(page, sweepNow), (element) => importance.before(element)],
      ["parallel", (sweep) => sweep.axes.length && sweep.trials.length, () => sweepSpace.parallel(page, sweepNow, brush), (element) => fill(first, element)],
      ["best", (sweep) => sweep.best_over_time.length, () => sweepStory.best(page, sweepNow), (element) => importance.before(element)],
      ["rungs", (sweep) => sweep.rungs.length, () => sweepStory.rungs(page, sweepNow), (element) => last.prepend(element)],
      ["lineage", (sweep) => sweep.lineage.length, () => sweepStory.lineage(page, sweepNow), (element) => last.append(element)],
    ];
    cards.append(importance);

    function draw() {
      const sweep = sweepNow();
      if (!sweep.trials.length) fill(first, parts.message("No trial has begun."));
      fill(importance, h("figcaption.card-head", null, h("h2.card-title", null, "What mattered")), sweepSpace.importance(sweep));
      for (const [name, isThere, make, put] of wanted) {
        if (there.has(name)) there.get(name).update();
        else if (isThere(sweep)) {
          there.set(name, make());
          put(there.get(name).element);
        }
      }
      trials.update();
    }

    draw();
    return { elements: [first, trials.element, cards, last], draw };
  }

  /** Shows the page of the sweep that the address names. */
  async function one(page) {
    let sweep = await Headway.api.get("api/sweep/" + page.id, null, page.signal);
    const sweepNow = () => sweep;
    page.title(sweep.id);
    const [top, gone] = [h("div"), h("div")];
    const drawTop = () => refill(top, h("div.page-head", null, h("h1", null, sweep.id), parts.state(sweep.state, sweep.status && sweep.status.reason), h("div.page-tools", null, stopButton(sweep))), headline(sweep));
    drawTop();
    const all = story(page, sweepNow, trialsPart(page, sweepNow));
    fill(page.root, h("p.crumbs", null, h("a", { href: link("sweeps") }, "Sweeps")), top, gone, all.elements);
    async function reload() {
      sweep = await Headway.api.get("api/sweep/" + page.id, null, page.signal);
      fill(gone);
      drawTop();
      all.draw();
      askAgain();
    }
    /** Importance takes the server some seconds; it answers without, first. */
    function askAgain() {
      if (!sweep.pending) return;
      const timer = setTimeout(() => reload().catch(() => null), 2500);
      page.onLeave(() => clearTimeout(timer));
    }
    function concerns({ changed, gone: names, sweeps }) {
      if (names.includes(sweep.id)) fill(gone, parts.message(`The folder of ${sweep.id} is no longer there: this is what was read of it before.`, "bad"));
      const runs = new Set(sweep.trials.map((trial) => trial.run));
      return sweeps.includes(sweep.id) || changed.some((row) => row.sweep === sweep.id) || names.some((name) => runs.has(name));
    }
    askAgain();
    refresh(page, reload, concerns);
  }

  Headway.pages = { ...Headway.pages, sweeps: list, sweep: one };
})((window.Headway = window.Headway || {}));
