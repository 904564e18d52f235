/* How a sweep went: best so far, who was stopped at which rung, who took weights from whom. */
"use strict";
(function (Headway) {
  const { h } = Headway.dom;
  const { duration, number, tick } = Headway.format;
  const { finite } = Headway.sweepSpace;
  const SYMBOLS = { stopped: "rect", failed: "triangle", running: "arrow" };

  function bestOption(sweep) {
    const { axis, base, tip } = Headway.charts;
    const { colour } = Headway.theme;
    const began = Math.min(...sweep.trials.map((trial) => trial.started).filter(finite), ...sweep.best_over_time.map((one) => one.time));
    const ended = sweep.trials.filter((trial) => finite(trial.result) && finite(trial.ended));
    const best = sweep.best_over_time.map((one) => ({ value: [one.time - began, one.value], trial: one.number }));
    if (best.length && ended.length) best.push({ ...best[best.length - 1], value: [Math.max(...ended.map((trial) => trial.ended)) - began, best[best.length - 1].value[1]] });
    const values = best.map((one) => one.value[1]);
    const room = values.length ? (Math.max(...values) - Math.min(...values)) * 0.6 || Math.abs(values[0]) * 0.1 : 1;
    return {
      ...base(),
      xAxis: { ...axis({ type: "value", min: 0, max: "dataMax", splitLine: { show: false } }), axisLabel: { color: colour("muted"), fontSize: 11, formatter: duration, showMaxLabel: false } },
      yAxis: { ...axis({ type: "value", scale: true, max: values.length ? Math.max(...values) + room : null, min: values.length ? Math.min(...values) - room * 0.2 : null }),
        axisLabel: { color: colour("muted"), fontSize: 11, formatter: tick, showMinLabel: false, showMaxLabel: false } },
      tooltip: { ...base().tooltip, trigger: "item", formatter: ({ data }) => tip("trial " + data.trial, [["", sweep.metric, number(data.value[1])], ["", "after", duration(data.value[0])]]) },
      series: [
        { type: "scatter", symbolSize: 5, clip: true, itemStyle: { color: colour("muted"), opacity: 0.5 }, emphasis: { disabled: true },
          data: ended.map((trial) => ({ value: [trial.ended - began, trial.result], trial: trial.number })) },
        { type: "line", step: "end", symbol: "circle", symbolSize: 5, lineStyle: { color: colour("accent"), width: 2 }, itemStyle: { color: colour("accent") }, emphasis: { disabled: true }, data: best },
      ],
    };
  }

  /** Returns the card of the best result so far over time. */
  function best(page, sweepNow) {
    const last = () => sweepNow().best_over_time[sweepNow().best_over_time.length - 1];
    return Headway.charts.card(page, {
      title: "Best so far", height: 240, draw: () => bestOption(sweepNow()),
      describe: () => (last() ? `Line chart of the best ${sweepNow().metric} so far: ${number(last().value)} in trial ${last().number}.` : "No result yet."),
      tabulate: () => ({ columns: ["time", "trial", sweepNow().metric || "result"], rows: sweepNow().best_over_time.map((one) => [Headway.format.stamp(one.time), one.number, one.value]) }),
    });
  }

  function rungOption(sweep) {
    const { axis, base, tip } = Headway.charts;
    const { colour } = Headway.theme;
    const rungs = sweep.rungs.map((rung) => String(rung.step));
    const sign = sweep.mode === "max" ? -1 : 1;
    const order = [...sweep.trials].sort((one, other) => Headway.table.compare(finite(one.result) ? sign * one.result : null, finite(other.result) ? sign * other.result : null));
    const colours = { stopped: colour("muted"), failed: colour("bad"), done: colour("accent"), running: colour("accent") };
    const bars = order.map((trial) => ({ value: trial.steps || 0, trial: trial.number, state: trial.state, itemStyle: { color: colours[trial.state] || colour("muted"), opacity: 0.45 } }));
    const ends = order.map((trial, at) => ({ value: [trial.steps || 0, at], trial: trial.number, state: trial.state, symbol: SYMBOLS[trial.state] || "circle", symbolRotate: trial.state === "running" ? -90 : 0,
      itemStyle: { color: colours[trial.state] || colour("muted") } }));
    const stoppedAt = (number_) => sweep.rungs.find((rung) => rung.stopped.includes(number_));
    const size = Math.max(3, Math.min(8, 300 / Math.max(1, order.length)));
    return {
      ...base(),
      grid: { left: 8, right: 18, top: 22, bottom: 4, containLabel: true },
      xAxis: { ...axis({ type: "value", min: 0, max: "dataMax", splitLine: { show: false } }), axisLabel: { color: colour("muted"), fontSize: 11, formatter: tick } },
      yAxis: axis({ type: "category", inverse: true, data: order.map((trial) => String(trial.number)), splitLine: { show: false }, axisLabel: { color: colour("muted"), fontSize: 10, interval: Math.ceil((order.length * 12) / 560) - 1 } }),
      tooltip: { ...base().tooltip, trigger: "item", formatter: ({ data }) => data && data.trial !== undefined ? tip("trial " + data.trial, [["", data.state, number(Array.isArray(data.value) ? data.value[0] : data.value) + " steps"],
        ...(stoppedAt(data.trial) ? [["", "stopped at rung", number(stoppedAt(data.trial).step)]] : [])]) : "" },
      series: [
        { type: "bar", barWidth: "55%", data: bars, emphasis: { disabled: true },
          markLine: { silent: true, symbol: "none", lineStyle: { color: colour("line"), type: "solid" }, label: { position: "start", color: colour("muted"), fontSize: 10, formatter: ({ value }) => tick(value) }, data: rungs.map((step) => ({ xAxis: Number(step) })) } },
        { type: "scatter", data: ends, symbolSize: size, emphasis: { disabled: true } },
      ],
    };
  }

  function trialLinks(sweep, numbers, most) {
    const run = (wanted) => sweep.trials.find((trial) => trial.number === wanted)?.run;
    const link = (wanted) => (run(wanted) ? h("a", { href: Headway.address.link("run", run(wanted)) }, wanted) : String(wanted));
    const shown = numbers.slice(0, most).flatMap((wanted, at) => (at ? [" ", link(wanted)] : [link(wanted)]));
    return numbers.length > most ? [...shown, " and " + (numbers.length - most) + " more"] : shown;
  }

  /** Returns the rungs: how far each trial came, and a table of who was stopped when. */
  function rungs(page, sweepNow) {
    const tall = () => Math.max(180, Math.min(640, sweepNow().trials.length * 9 + 60));
    const card = Headway.charts.card(page, {
      title: "Rungs: how far each trial came", height: tall(), heightNow: tall, draw: () => rungOption(sweepNow()),
      describe: () => "Bars of the steps that each trial made, best first. " + sweepNow().rungs.map((rung) => `At step ${rung.step} ${rung.reached.length} arrived and ${rung.stopped.length} were stopped`).join("; ") + ".",
      tabulate: () => ({ columns: ["trial", "state", "steps", "result"], rows: sweepNow().trials.map((trial) => [trial.number, trial.state, trial.steps, trial.result]) }),
      tools: h("span.note", null, "best first; a square was stopped"),
    });
    card.element.dataset.chart = "rungs";
    const table = Headway.table.make({ caption: "Rungs", sort: "step", keyOf: (row) => String(row.step), columns: [
      { key: "step", label: "Rung at step", numeric: true, rowHead: true, cell: (row) => number(row.step) },
      { key: "reached", label: "Arrived", numeric: true, value: (row) => row.reached.length, cell: (row) => row.reached.length },
      { key: "stopped", label: "Stopped", numeric: true, value: (row) => row.stopped.length, cell: (row) => row.stopped.length },
      { key: "who", label: "Who was stopped", fixed: true, head: "Who was stopped", cell: (row) => trialLinks(sweepNow(), row.stopped, 40) },
    ] });
    const draw = () => table.show(sweepNow().rungs);
    draw();
    return { element: h("div.stack", null, card.element, table.element), update: () => (card.update(true), draw()) };
  }

  function lineageOption(sweep) {
    const { axis, base, tip } = Headway.charts;
    const { colour } = Headway.theme;
    const numbers = sweep.trials.map((trial) => trial.number);
    const row = (trial) => numbers.indexOf(trial);
    const lives = sweep.trials.map((trial) => ({ coords: [[0, row(trial.number)], [trial.steps || 0, row(trial.number)]] }));
    const taken = sweep.lineage.map((one) => ({ coords: [[one.step, row(one.giver)], [one.step, row(one.taker)]], one }));
    const settings = (one) => Object.entries(one.settings || {}).map(([path, value]) => ["", path, Headway.format.value(value)]);
    return {
      ...base(),
      xAxis: { ...axis({ type: "value", min: 0, max: "dataMax", splitLine: { show: false } }), axisLabel: { color: colour("muted"), fontSize: 11, formatter: tick } },
      yAxis: axis({ type: "category", data: numbers.map(String), splitLine: { show: false } }),
      tooltip: { ...base().tooltip, trigger: "item", formatter: ({ data }) => (data.one ? tip(`step ${number(data.one.step)}: ${data.one.taker} took from ${data.one.giver}`, settings(data.one)) : "") },
      series: [
        { type: "lines", coordinateSystem: "cartesian2d", silent: true, data: lives, lineStyle: { color: colour("line"), width: 3, opacity: 1 } },
        { type: "lines", coordinateSystem: "cartesian2d", data: taken, symbol: ["none", "arrow"], symbolSize: 7, lineStyle: { color: colour("accent"), width: 1.5, opacity: 0.9, curveness: 0.15 } },
        { type: "scatter", symbolSize: 6, itemStyle: { color: colour("accent") }, emphasis: { disabled: true }, data: sweep.lineage.map((one) => ({ value: [one.step, row(one.taker)], one })) },
        { type: "scatter", symbolSize: 0, silent: true, data: sweep.trials.map((trial) => [trial.steps || 0, row(trial.number)]) },
      ],
    };
  }

  /** Returns the lineage of a population: who took weights from whom, and with what settings it went on. */
  function lineage(page, sweepNow) {
    const tall = () => Math.max(160, Math.min(560, sweepNow().trials.length * 26 + 50));
    const card = Headway.charts.card(page, {
      title: "Lineage: who took weights from whom", height: tall(), heightNow: tall, draw: () => lineageOption(sweepNow()),
      describe: () => "Trials as lines over steps with an arrow wherever one took another's weights: " + sweepNow().lineage.slice(0, 10).map((one) => `${one.taker} from ${one.giver} at step ${one.step}`).join(", ") + ".",
      tabulate: () => ({ columns: ["step", "taker", "giver", "settings"], rows: sweepNow().lineage.map((one) => [one.step, one.taker, one.giver, Headway.format.value(one.settings)]) }),
    });
    card.element.dataset.chart = "lineage";
    return { element: card.element, update: () => card.update(true) };
  }

  Headway.sweepStory = { best, rungs, lineage };
})((window.Headway = window.Headway || {}));
