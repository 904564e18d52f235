/* A sweep's trials in the space it searches: parallel coordinates, one setting against the metric, importance. */
"use strict";
(function (Headway) {
  const { h } = Headway.dom;
  const { number } = Headway.format;

  function short(path) {
    const parts = path.split(".");
    return parts.length > 2 ? parts.slice(-2).join(".") : path;
  }

  function finite(value) {
    return typeof value === "number" && Number.isFinite(value);
  }

  /** Colours follow the middle nine tenths of the results: one that diverged does not take them all. */
  function limits(trials) {
    const sorted = trials.map((trial) => trial.result).filter(finite).sort((one, other) => one - other);
    if (!sorted.length) return [0, 1];
    const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
    const [least, most] = [at(0.05), at(0.9)];
    return least === most ? [least - 1e-9, most + 1e-9] : [least, most];
  }

  /** How wide an axis is to a pointer, in pixels: a finger needs more. */
  function reach() {
    return window.matchMedia("(pointer: coarse)").matches ? 32 : 18;
  }

  function axisOf(given, dim) {
    const { colour } = Headway.theme;
    const shared = { dim, name: short(given.path), nameGap: 12, nameTextStyle: { color: colour("ink"), fontSize: 11 }, axisLabel: { color: colour("muted"), fontSize: 10.5, backgroundColor: colour("surface"), padding: [1, 3] },
      axisLine: { lineStyle: { color: colour("line") } }, axisTick: { show: false }, splitLine: { show: false },
      areaSelectStyle: { width: reach(), borderWidth: 1, borderColor: colour("accent"), color: colour("accent"), opacity: 0.25 } };
    if (given.kind === "choice") return { ...shared, type: "category", data: (given.choices || []).map(Headway.format.value) };
    return { ...shared, type: given.log ? "log" : "value", scale: true, axisLabel: { ...shared.axisLabel, formatter: Headway.format.tick } };
  }

  function placed(axis, value) {
    if (value === null || value === undefined) return "-";
    return axis.kind === "choice" ? Headway.format.value(value) : value;
  }

  /** Returns the trials that have a result, and those that have none: failed, or not yet there. Each is a series. */
  function byResult(sweep) {
    return [sweep.trials.filter((trial) => finite(trial.result)), sweep.trials.filter((trial) => !finite(trial.result))];
  }

  function parallelOption(sweep) {
    const { base, ranking } = Headway.charts;
    const { colour } = Headway.theme;
    const narrow = window.innerWidth < 600;
    const [min, max] = limits(sweep.trials);
    const colours = sweep.mode === "max" ? [...ranking()].reverse() : ranking();
    const last = sweep.axes.length;
    const axes = [...sweep.axes.map(axisOf), axisOf({ path: sweep.metric || "result", kind: "float", log: false }, last)];
    return {
      ...base(),
      parallel: { left: narrow ? 34 : 60, right: narrow ? 30 : 56, top: 34, bottom: 18, layout: "horizontal", axisExpandable: false,
        parallelAxisDefault: { nameLocation: "end" } },
      parallelAxis: axes,
      visualMap: { show: false, type: "continuous", dimension: last, min, max, inRange: { color: colours }, seriesIndex: 0 },
      series: byResult(sweep).map((trials, at) => ({ type: "parallel", smooth: false, inactiveOpacity: 0.04, activeOpacity: 0.9, progressive: 0,
        lineStyle: at ? { width: 1.2, opacity: 0.7, color: colour("bad"), type: [4, 4] } : { width: 1.3, opacity: 0.65 },
        data: trials.map((trial) => [...sweep.axes.map((axis) => placed(axis, trial.values[axis.path])), finite(trial.result) ? trial.result : "-"]) })),
      color: [colour("accent")],
    };
  }

  /**
   * Returns the card of parallel coordinates.
   * @param {Object} page the open page.
   * @param {Function} sweepNow () -> the sweep's answer.
   * @param {Function} onBrush (set of trial numbers, or null where nothing is brushed).
   */
  function parallel(page, sweepNow, onBrush) {
    const tabulate = () => {
      const sweep = sweepNow();
      return { columns: ["trial", ...sweep.axes.map((axis) => axis.path), sweep.metric || "result"],
        rows: sweep.trials.map((trial) => [trial.number, ...sweep.axes.map((axis) => trial.values[axis.path] ?? null), trial.result]) };
    };
    const card = Headway.charts.card(page, {
      title: "Settings and result", height: 320, draw: () => parallelOption(sweepNow()), tabulate,
      describe: () => `Parallel coordinates of ${Headway.format.count(sweepNow().trials.length, "trial")} over ${sweepNow().axes.map((axis) => axis.path).join(", ")} and ${sweepNow().metric}. The table of trials below has the same.`,
      tools: h("span.note", null, "drag along an axis to choose, click it to let go; dashed: no result"),
      ready: (chart, box) => {
        chart.on("axisareaselected", () => onBrush(brushed(chart, sweepNow())));
        scrollBesideAxes(chart, box);
      },
    });
    card.element.dataset.chart = "parallel";

    /** What is brushed stays so while trials come and go on; those that are new are among it or not. */
    function update() {
      card.update();
      const chosen = card.chart() && brushed(card.chart(), sweepNow());
      if (chosen) onBrush(chosen);
    }
    return { ...card, update };
  }

  /** ECharts takes every finger on a chart that can be brushed: those beside its axes are kept from it, and scroll the page. */
  function scrollBesideAxes(chart, box) {
    box.addEventListener("touchstart", (event) => {
      const { coordinateSystem } = chart.getModel().getComponent("parallel");
      const x = event.touches[0].clientX - box.getBoundingClientRect().left;
      const near = coordinateSystem.dimensions.some((dim) => Math.abs(coordinateSystem.getAxisLayout(dim).position[0] - x) <= reach() / 2);
      if (near) event.preventDefault(); // a selection that is moved scrolls nothing, either
      else event.stopPropagation();
    }, { capture: true, passive: false });
  }

  function brushed(chart, sweep) {
    const model = chart.getModel();
    const any = model.queryComponents({ mainType: "parallelAxis" }).some((axis) => axis.activeIntervals.length);
    if (!any) return null;
    const active = (trials, at) => model.getSeriesByIndex(at).getRawIndicesByActiveState("active").map((row) => trials[row].number);
    return new Set(byResult(sweep).flatMap(active));
  }

  function scatterOption(sweep, path, chosen) {
    const { axis, base, tip } = Headway.charts;
    const { colour } = Headway.theme;
    const given = sweep.axes.find((one) => one.path === path);
    const rows = sweep.trials.filter((trial) => finite(trial.result) && trial.values[path] !== null && trial.values[path] !== undefined);
    const results = rows.map((trial) => trial.result);
    const log = results.length && Math.min(...results) > 0 && Math.max(...results) / Math.min(...results) > 50;
    const x = given.kind === "choice"
      ? axis({ type: "category", data: (given.choices || []).map(Headway.format.value) })
      : axis({ type: given.log ? "log" : "value", scale: true });
    return {
      ...base(),
      xAxis: { ...x, name: path, nameLocation: "middle", nameGap: 24, axisLabel: { ...x.axisLabel, interval: given.kind === "choice" ? 0 : undefined, formatter: given.kind === "choice" ? undefined : Headway.format.tick } },
      grid: { left: 8, right: 16, top: 12, bottom: 22, containLabel: true },
      yAxis: { ...axis({ type: log ? "log" : "value", scale: true }), name: "" },
      tooltip: { ...base().tooltip, trigger: "item", formatter: ({ data }) => tip("trial " + data.trial, [["", short(path), Headway.format.value(data.value[0])], ["", sweep.metric, number(data.value[1])]]) },
      series: [{ type: "scatter", symbolSize: 8, progressive: 0, emphasis: { disabled: true }, data: rows.map((trial) => ({
        value: [placed(given, trial.values[path]), trial.result], trial: trial.number, symbol: trial.state === "stopped" ? "emptyRect" : trial.state === "failed" ? "triangle" : "circle",
        itemStyle: { color: colour("accent"), opacity: !chosen || chosen.has(trial.number) ? 0.75 : 0.08 },
      })) }],
    };
  }

  /** Returns the card of one setting against the metric: {element, update(), choose(set)}. */
  function scatter(page, sweepNow) {
    let path = sweepNow().axes[0].path;
    let chosen = null;
    const rows = () => sweepNow().trials.map((trial) => [trial.number, trial.values[path] ?? null, trial.result]);
    const pick = Headway.parts.select("Setting against the result", sweepNow().axes.map((axis) => [axis.path, axis.path]), path, (wanted) => {
      path = wanted;
      card.update(true);
    });
    pick.firstChild.className = "unseen";
    const card = Headway.charts.card(page, {
      title: (sweepNow().metric || "result") + " against", height: 280, tools: pick, draw: () => scatterOption(sweepNow(), path, chosen),
      describe: () => `Scatter chart of ${path} against ${sweepNow().metric} for ${Headway.format.count(sweepNow().trials.length, "trial")}. Circles are trials that finished, open squares were stopped.`,
      tabulate: () => ({ columns: ["trial", path, sweepNow().metric || "result"], rows: rows() }),
    });
    card.element.dataset.chart = "scatter";
    return { element: card.element, update: card.update, choose: (set) => ((chosen = set), card.update(true)) };
  }

  /** Returns how much each setting mattered, as bars of the page itself. */
  function importance(sweep) {
    const found = Object.entries(sweep.importance || {}).sort((one, other) => other[1] - one[1]);
    if (!found.length) return Headway.parts.message(sweep.importance_reason || sweep.reason || "Too few trials have ended to say what mattered.");
    const most = found[0][1] || 1;
    return h("table.importance", null, h("caption.unseen", null, "Importance of each setting"), h("tbody", null, found.map(([path, share]) => h("tr", null,
      h("th", { scope: "row" }, path), h("td.bar-cell", null, h("span.bar", { "aria-hidden": "true" }, h("span.bar-part", { style: { width: (100 * share) / most + "%" } }))),
      h("td.numeric", null, Math.round(share * 100) + " %")))));
  }

  Headway.sweepSpace = { parallel, scatter, importance, finite };
})((window.Headway = window.Headway || {}));
