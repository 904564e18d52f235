/* The page of one run: what it is, in tabs. */
"use strict";
(function (Headway) {
  const { h, fill, refill } = Headway.dom;
  const { parts } = Headway;
  const { link } = Headway.address;
  const RUNNING = ["created", "running"];

  function charts(page, run, box) {
    const runs = [{ id: run.id, label: run.row.title || run.id, at: 0, colour: () => Headway.charts.palette(0), metrics: [...run.metrics] }];
    const board = Headway.curveBoard.make(page, runs);
    fill(box, board.element);
    return { grow: (series) => board.grow(run.id, series), reload: board.reload };
  }

  function logs(page, run, box) {
    if (!run.logs.length) return fill(box, parts.message("No rank has printed anything."));
    const path = "api/run/" + run.id + "/log";
    const place = h("div");
    let log = null;
    const open = (rank) => {
      if (log) log.stop();
      log = Headway.logView.make(page, path, { rank }, RUNNING.includes(run.row.state));
      fill(place, log.element);
    };
    const asked = run.logs.find((rank) => String(rank) === page.params.rank) ?? run.logs[0];
    const ranks = parts.select("Rank", run.logs.map((rank) => [String(rank), String(rank)]), String(asked), (rank) => {
      Headway.address.change({ rank });
      open(rank);
    });
    open(asked);
    return fill(box, run.logs.length > 1 ? h("div.toolbar", null, ranks) : null, place);
  }

  const TABS = { ...Headway.runTabs, charts, logs };

  /** What W&B's runs never have, and headway's may yet get, is left out of theirs. */
  function tabList(run) {
    const foreign = run.row.source === "wandb";
    const speeds = run.metrics.some((name) => name.startsWith("perf/"));
    return [
      { key: "overview", label: "Overview" },
      { key: "charts", label: "Charts", count: run.metrics.filter((name) => !name.startsWith("health/")).length },
      { key: "health", label: "Health", gone: foreign && !run.health.kinds.length },
      { key: "throughput", label: "Throughput", gone: foreign && !speeds },
      { key: "logs", label: "Logs", count: run.logs.length },
      { key: "checkpoints", label: "Checkpoints", count: run.checkpoints.length, gone: foreign },
      { key: "media", label: "Media", count: run.media.length },
      { key: "histograms", label: "Histograms", count: run.histograms.length, gone: !run.histograms.length },
      { key: "recipe", label: "Recipe", gone: foreign },
    ].filter((tab) => !tab.gone);
  }

  function remove(run) {
    if (RUNNING.includes(run.row.state) || run.row.source !== "headway") return null;
    return Headway.actions.button({
      label: "Delete", path: "api/run/" + run.id + "/delete", title: "Delete this run?",
      what: `The folder of ${run.id}, with its metrics, logs and checkpoints, will be deleted. This cannot be undone.`,
      done: () => (location.hash = link("runs")),
    });
  }

  function howFar({ step, total_steps: total }) {
    if (step === null || step === undefined) return null;
    return total ? parts.progress(step, total) : h("span.progress", null, "step " + Headway.format.number(step));
  }

  /** A row of tabs that is wider than a phone begins where the open one is seen whole. */
  function bringIntoView(tab) {
    const over = tab.offsetLeft + tab.offsetWidth - tab.parentElement.offsetLeft - tab.parentElement.clientWidth;
    if (over > 0) tab.parentElement.scrollLeft = over;
  }

  function head(run) {
    const { row } = run;
    const state = h("span", { id: "run-state" }, parts.state(row.state, row.reason));
    const compare = h("a.button", { href: link("compare", "", { runs: run.id }) }, "Compare");
    return h("div.page-head", null, h("h1", null, row.title || run.id), state, howFar(row),
      h("div.page-tools", null, compare, remove(run)));
  }

  /** Returns what a tab shows of a run as a text: where it changes, the tab is drawn anew. Charts and logs follow by themselves. */
  function shownIn(tab, run) {
    const own = {
      overview: [run.row, run.status, run.manifest, run.problems, run.resumed, run.recipe],
      health: [run.health], throughput: run.metrics.filter((name) => name.startsWith("perf/")), logs: run.logs,
      checkpoints: run.checkpoints, media: run.media, histograms: run.histograms, recipe: run.recipe_yaml,
    };
    return JSON.stringify(own[tab] ?? null);
  }

  /** Shows the page of the run that the address names. */
  async function show(page) {
    let run = await Headway.api.get("api/run/" + page.id, null, page.signal);
    const open = page.params.tab in TABS ? page.params.tab : "overview";
    const [top, tabs, gone] = [h("div"), h("div"), h("div")];
    const box = h("div.tab", { "data-tab": open });
    const drawHead = () => {
      refill(top, head(run));
      refill(tabs, parts.tabs(tabList(run), open, (key) => link("run", run.id, { tab: key === "overview" ? "" : key }), "Run"));
    };
    drawHead();
    fill(page.root, h("p.crumbs", null, h("a", { href: link("runs") }, "Runs")), top, gone, tabs, box);
    page.root.querySelectorAll(".tabs [aria-current]").forEach(bringIntoView);
    page.title(run.row.title || run.id);
    let known = new Set(run.metrics);
    let tab = await TABS[open](page, run, box);

    async function load() {
      const fresh = await Headway.api.get("api/run/" + page.id, null, page.signal).catch((problem) => ({ problem }));
      if (page.signal.aborted) return;
      if (fresh.problem) return fresh.problem.status === 404 ? sayGone() : undefined;
      const before = run;
      run = fresh;
      known = new Set(run.metrics);
      drawHead();
      if (shownIn(open, before) !== shownIn(open, run)) tab = await TABS[open](page, run, box);
    }

    function sayGone() {
      fill(gone, parts.message(`The folder of ${run.id} is no longer there: this is what was read of it before.`, "bad"));
    }

    function change({ changed, gone: names }) {
      if (names.includes(run.id)) return sayGone();
      if (!changed.some((row) => row.id === run.id)) return undefined;
      return gone.firstChild ? Headway.reopen() : again();
    }

    function grow({ series }) {
      if (Object.keys(series).some((name) => !known.has(name))) again();
      if (tab && tab.grow) tab.grow(series);
    }

    function back() {
      again();
      if (tab && tab.reload) tab.reload();
    }

    const again = Headway.dom.throttle(page, load, 500);
    page.onLeave(Headway.live.watch({ runs: [run.id], table: true }, {
      rows: grow, table: change, back,
      reset: Headway.reopen, // its rows were replaced: drawn anew
    }));
  }

  Headway.pages = { ...Headway.pages, run: show };
})((window.Headway = window.Headway || {}));
