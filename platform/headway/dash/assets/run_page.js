/* The page of one run: what it is, in tabs. */
"use strict";
(function (Headway) {
  const { h, fill } = Headway.dom;
  const { parts } = Headway;
  const { link } = Headway.address;
  const RUNNING = ["created", "running"];

  function charts(page, run, box) {
    const runs = [{ id: run.id, label: run.row.title || run.id, at: 0, colour: () => Headway.charts.palette(0), metrics: [...run.metrics] }];
    const board = Headway.curveBoard.make(page, runs);
    fill(box, board.element);
    return (series) => board.grow(run.id, series);
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

  function tabList(run) {
    return [
      { key: "overview", label: "Overview" },
      { key: "charts", label: "Charts", count: run.metrics.filter((name) => !name.startsWith("health/")).length },
      { key: "health", label: "Health" },
      { key: "throughput", label: "Throughput" },
      { key: "logs", label: "Logs", count: run.logs.length },
      { key: "checkpoints", label: "Checkpoints", count: run.checkpoints.length },
      { key: "media", label: "Media", count: run.media.length },
      { key: "recipe", label: "Recipe" },
    ];
  }

  function remove(run) {
    if (RUNNING.includes(run.row.state)) return null;
    return Headway.actions.button({
      label: "Delete", path: "api/run/" + run.id + "/delete", title: "Delete this run?",
      what: `The folder of ${run.id}, with its metrics, logs and checkpoints, will be deleted. This cannot be undone.`,
      done: () => (location.hash = link("runs")),
    });
  }

  function head(run) {
    const { row } = run;
    const state = h("span", { id: "run-state" }, parts.state(row.state, row.reason));
    const far = row.total_steps || row.step === null ? parts.progress(row.step, row.total_steps) : h("span.progress", null, "step " + Headway.format.number(row.step));
    const compare = h("a.button", { href: link("compare", "", { runs: run.id }) }, "Compare");
    return h("div.page-head", null, h("h1", null, row.title || run.id), state, far,
      h("div.page-tools", null, compare, remove(run)));
  }

  /** Shows the page of the run that the address names. */
  async function show(page) {
    const run = await Headway.api.get("api/run/" + page.id, null, page.signal);
    const open = page.params.tab in TABS ? page.params.tab : "overview";
    const box = h("div.tab", { "data-tab": open });
    const top = h("div", null, head(run));
    fill(page.root, h("p.crumbs", null, h("a", { href: link("runs") }, "Runs")), top,
      parts.tabs(tabList(run), open, (key) => link("run", run.id, { tab: key === "overview" ? "" : key }), "Run"), box);
    page.title(run.row.title || run.id);
    const grow = await TABS[open](page, run, box);
    const again = Headway.dom.throttle(page, async () => {
      const fresh = await Headway.api.get("api/run/" + page.id, null, page.signal).catch(() => null);
      if (!fresh) return;
      fill(top, head(fresh));
      if (open === "overview") TABS.overview(page, fresh, box);
    }, 500);
    page.onLeave(Headway.live.watch({ runs: [run.id], table: true }, {
      rows: ({ series }) => typeof grow === "function" && grow(series),
      reset: () => window.dispatchEvent(new HashChangeEvent("hashchange")), // its rows were replaced: drawn anew
      table: ({ changed }) => changed.some((row) => row.id === run.id) && again(),
    }));
  }

  Headway.pages = { ...Headway.pages, run: show };
})((window.Headway = window.Headway || {}));
