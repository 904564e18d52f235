/* How fast a run is and where its time goes. */
"use strict";
(function (Headway) {
  const { h, fill } = Headway.dom;
  const { bytes, duration, number, short } = Headway.format;
  const PARTS = ["data", "forward", "backward", "communication", "update"];
  // Rows of these are seconds since the row before, not seconds of one step.
  const NOW_AND_THEN = ["validation", "checkpoint"];

  /** Returns [part, metric] of the times that add up to a step, in the order in which a step does them. */
  function timesOf(metrics) {
    const found = metrics.map((name) => [name.match(/^perf\/(\w+?)(?:_time)?_s$/)?.[1], name]);
    const times = found.filter(([part, name]) => part && part !== "step" && !/_per_s$/.test(name));
    const place = ([part]) => (PARTS.includes(part) ? PARTS.indexOf(part) : 50);
    return times.sort((one, other) => place(one) - place(other));
  }

  function shownAs(name) {
    if (/bytes/.test(name)) return bytes;
    if (/mfu/.test(name)) return (value) => (value === null ? "–" : number(value * 100) + " %");
    if (/_time_s$|_s$/.test(name) && !/per_s$/.test(name)) return duration;
    return short;
  }

  function figures(held) {
    const last = (series) => [...series.y].reverse().find((value) => value !== null);
    const shown = held.filter(({ name, series }) => series && series.y.length && !/_time_s$/.test(name));
    return h("dl.headline", null, shown.map(({ name, series }) =>
      h("div", null, h("dt", null, name.replace("perf/", "").replace(/_/g, " ").replace(" per s", " a second")), h("dd", null, shownAs(name)(last(series))))));
  }

  /** Returns values at the steps of `step`; nothing where there is no row. */
  function aligned(series, step) {
    const found = new Map(series.x.map((x, at) => [x, series.y[at]]));
    return step.x.map((x) => found.get(x) ?? 0);
  }

  /** Returns seconds a step of what happens now and then: each time's seconds over the steps since the time before. */
  function spread(series, step) {
    const many = series.min ? series.rows / series.x.length : 1; // of a long run each point stands for so many rows
    return step.x.map((x) => {
      const next = series.x.findIndex((end) => end >= x);
      if (next < 0) return 0;
      return ((series.y[next] || 0) * many) / Math.max(1, series.x[next] - (next ? series.x[next - 1] : 0));
    });
  }

  /**
   * Returns [{part, series}] at the same steps, with what of a step no part accounts for.
   * @param {Array} times [{part, series}] as recorded.
   * @param {Object} step the series of the time of a whole step.
   */
  function partsOfStep(times, step) {
    if (!step || !step.x.length) return [];
    const ofStep = times.filter(({ part }) => !NOW_AND_THEN.includes(part)).map(({ part, series }) => ({ part, y: aligned(series, step) }));
    const rest = step.y.map((whole, at) => Math.max(0, (whole || 0) - ofStep.reduce((sum, one) => sum + one.y[at], 0)));
    const others = times.filter(({ part }) => NOW_AND_THEN.includes(part)).map(({ part, series }) => ({ part, y: spread(series, step) }));
    const all = [...ofStep, { part: ofStep.length ? "everything else" : "step", y: rest }, ...others];
    return all.map(({ part, y }) => ({ part, series: { x: step.x, y } }));
  }

  function stacked(times) {
    const { axis, base, palette, tip } = Headway.charts;
    const { colour } = Headway.theme;
    return {
      ...base(),
      grid: { left: 8, right: 14, top: 34, bottom: 4, containLabel: true },
      legend: { top: 0, left: 0, type: "scroll", icon: "roundRect", itemWidth: 12, itemHeight: 8, textStyle: { color: colour("ink"), fontSize: 11 }, inactiveColor: colour("hair") },
      xAxis: axis({ type: "value", min: "dataMin", max: "dataMax", splitLine: { show: false }, axisLabel: { color: colour("muted"), formatter: Headway.format.tick } }),
      yAxis: axis({ type: "value", axisLabel: { color: colour("muted"), formatter: duration } }),
      tooltip: { ...base().tooltip, trigger: "axis", formatter: (found) => tip("step " + number(found[0].value[0]), found.map((one) => [one.color, one.seriesName, duration(one.value[1])]).reverse()) },
      series: times.map(({ part, series }, at) => ({
        type: "line", name: part, stack: "time", showSymbol: false, color: palette(at), lineStyle: { width: 0 }, areaStyle: { opacity: 0.85 },
        emphasis: { disabled: true }, data: series.x.map((x, row) => [x, series.y[row]]),
      })),
    };
  }

  function describeTimes(times) {
    const mean = ({ series }) => {
      const found = series.y.filter((value) => value !== null);
      return found.length ? found.reduce((sum, value) => sum + value, 0) / found.length : 0;
    };
    const whole = times.reduce((sum, one) => sum + mean(one), 0) || 1;
    return "Stacked areas of the time of a step. " + times.map((one) => `${one.part} ${Math.round((100 * mean(one)) / whole)} %`).join(", ") + ".";
  }

  function tabulateTimes(times) {
    const steps = times.length ? times[0].series.x : [];
    return { columns: ["step", ...times.map((one) => one.part)], rows: steps.map((step, at) => [step, ...times.map((one) => one.series.y[at])]) };
  }

  /** Fills the tab of a run's speed; returns what new rows do. */
  async function throughput(page, run, box) {
    const names = run.metrics.filter((name) => name.startsWith("perf/"));
    if (!names.length) {
      fill(box, Headway.parts.message("No rows of speed yet; one is written about once a second while a run trains."));
      return null;
    }
    const head = h("div");
    let times = [];
    const chart = Headway.charts.card(page, {
      title: "Time of a step", height: 260, tools: h("span.note", null, "validation and checkpoints are spread over the steps between"), draw: () => stacked(times), describe: () => describeTimes(times), tabulate: () => tabulateTimes(times),
    });
    chart.element.dataset.chart = "step-time";
    const plain = names.filter((name) => !timesOf(names).some(([, other]) => other === name));
    const runs = [{ id: run.id, label: run.id, at: 0, colour: () => Headway.charts.palette(0), metrics: plain }];
    const board = Headway.curveBoard.make(page, runs);
    fill(box, head, chart.element, board.element);

    async function load() {
      const held = await Promise.all(names.map(async (name) => ({ name, series: await Headway.series.get(run.id, name, { x: "step", from: "", to: "" }, page.signal) })));
      const of = (name) => held.find((one) => one.name === name)?.series;
      const known = timesOf(names).map(([part, name]) => ({ part, series: of(name) })).filter((one) => one.series && one.series.x.length);
      times = partsOfStep(known, of("perf/step_time_s"));
      fill(head, figures(held));
      chart.update(true);
    }

    await load();
    const again = Headway.dom.throttle(page, () => load().catch(() => null), 1500);
    function grow(series) {
      board.grow(run.id, Object.fromEntries(Object.entries(series).filter(([name]) => plain.includes(name))));
      if (Object.keys(series).some((name) => name.startsWith("perf/"))) again();
    }

    function reload() {
      board.reload();
      again();
    }
    return { grow, reload };
  }

  Headway.throughput = { partsOfStep };
  Headway.runTabs = { ...Headway.runTabs, throughput };
})((window.Headway = window.Headway || {}));
