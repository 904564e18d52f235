/* One metric of some runs as curves: smoothed or raw, with the band from least to most, zoomed by dragging. */
"use strict";
(function (Headway) {
  const { h } = Headway.dom;
  const { extent, smooth } = Headway.series;
  const MOST_GROWN = 1500;
  const DECIDED_PIXELS = 8; // what a finger goes before its direction counts

  function axisNumber(value, x) {
    return x === "time" ? Headway.format.duration(value) : Headway.format.tick(value);
  }

  /** Returns [x, y] pairs; a log scale has no place for what is not above zero: a gap. */
  function points(series, values, view) {
    return series.x.map((x, at) => [x, view.log && values[at] <= 0 ? null : values[at]]);
  }

  /** Returns what of the curves cannot be drawn, in words; "" where all can. */
  function undrawn(held, view) {
    const shown = held.filter((one) => one.series && !one.run.hidden);
    const many = (wanted) => shown.reduce((sum, one) => sum + one.series.y.filter(wanted).length, 0);
    const none = many((y) => y === null);
    const low = view.log ? many((y) => y !== null && y <= 0) : 0;
    const { count } = Headway.format;
    return [none ? count(none, "point") + " nan or infinite" : "", low ? count(low, "point") + " not above zero" : ""].filter(Boolean).join(", ");
  }

  /** Draws the band as one polygon for each unbroken stretch: right on a log axis and below zero, too. */
  function band(series, colour, view) {
    const lows = (at) => (view.log && series.min[at] <= 0 ? null : series.min[at]);
    const whole = (at) => lows(at) !== null && series.max[at] !== null;
    return {
      type: "custom", silent: true, clip: true, z: 1, data: [[series.x[0], series.y[0]]], tooltip: { show: false },
      encode: { x: 0, y: [] },
      renderItem: (_, api) => ({ type: "group", children: stretches(series.x.length, whole).map(([from, to]) => {
        const corner = (at, side) => api.coord([series.x[at], side[at]]);
        const ups = range(from, to).map((at) => corner(at, series.max));
        const downs = range(from, to).map((at) => corner(at, series.min)).reverse();
        return { type: "polygon", shape: { points: ups.concat(downs) }, style: { fill: colour, opacity: 0.16 } };
      }) }),
    };
  }

  function range(from, to) {
    return Array.from({ length: to - from }, (_, at) => from + at);
  }

  function stretches(length, whole) {
    const found = [];
    let from = null;
    for (let at = 0; at <= length; at += 1) {
      const on = at < length && whole(at);
      if (on && from === null) from = at;
      if (!on && from !== null) {
        found.push([from, at]);
        from = null;
      }
    }
    return found;
  }

  function line(id, name, data, style) {
    return {
      type: "line", id, name, data, showSymbol: data.length === 1, symbolSize: 5, z: style.z, silent: true,
      lineStyle: { color: style.colour, width: style.width, opacity: style.opacity, type: style.dash },
      itemStyle: { color: style.colour, opacity: style.opacity }, emphasis: { disabled: true },
      tooltip: style.faint ? { show: false } : undefined,
    };
  }

  /** Says whether a finger goes along the page rather than along the axis, or is one of two that pinch. */
  function scrolls(native, start) {
    if (!native.touches) return false;
    if (native.touches.length > 1) return true;
    if (start.decided) return false;
    const finger = native.touches[0];
    const [across, along] = [Math.abs(finger.clientX - start.clientX), Math.abs(finger.clientY - start.clientY)];
    start.decided = Math.max(across, along) >= DECIDED_PIXELS;
    return start.decided && along > across;
  }

  /**
   * Lets a mouse or a finger choose a range of a chart by dragging; a double click asks for the whole.
   * A finger that sets out upwards or downwards scrolls the page (see `touch-action` of `.zooms`) and chooses nothing.
   */
  function dragToZoom(chart, box, onRange) {
    const shade = h("div.zoom-shade", { hidden: true });
    box.append(shade);
    box.classList.add("zooms");
    const pointer = chart.getZr();
    let start = null;
    const leave = () => {
      start = null;
      shade.hidden = true;
    };
    pointer.on("mousedown", (event) => {
      leave();
      if (!chart.containPixel("grid", [event.offsetX, event.offsetY])) return;
      const { clientX, clientY } = (event.event.touches || [event.event])[0];
      start = { x: event.offsetX, clientX, clientY, decided: !event.event.touches };
    });
    pointer.on("mousemove", (event) => {
      if (start === null) return;
      if (scrolls(event.event, start)) return void leave();
      if (event.event.touches && start.decided) event.event.preventDefault(); // or the browser takes it for a fling, and the next tap for its end
      shade.hidden = !start.decided || Math.abs(event.offsetX - start.x) < 4;
      shade.style.left = Math.min(start.x, event.offsetX) + "px";
      shade.style.width = Math.abs(event.offsetX - start.x) + "px";
    });
    pointer.on("mouseup", (event) => {
      if (start === null) return;
      const [from, to] = [start.x, event.offsetX].sort((one, other) => one - other);
      const meant = start.decided;
      leave();
      if (!meant || to - from < 6) return;
      const value = (pixel) => chart.convertFromPixel({ xAxisIndex: 0 }, pixel);
      onRange([value(from), value(to)]);
    });
    pointer.on("globalout", leave);
    box.addEventListener("touchcancel", leave);
    pointer.on("dblclick", () => onRange(null));
  }

  function describe(title, held, view) {
    const parts = held.filter((one) => one.series).map(({ run, series }) => {
      const found = extent(series.y);
      if (!found) return run.label + ": no numbers";
      const { number } = Headway.format;
      return `${run.label}: last ${number(found.last)}, least ${number(found.least)}, most ${number(found.most)}`;
    });
    const shown = parts.slice(0, 12).join("; ") + (parts.length > 12 ? `; and ${parts.length - 12} more` : "");
    const holes = undrawn(held, view);
    return `Line chart of ${title} over ${view.x}. ${shown || "No rows yet"}.${holes ? ` Not drawn: ${holes}.` : ""}`;
  }

  function tabulate(held, view) {
    const shown = held.filter((one) => one.series && one.series.x.length);
    const found = new Map();
    shown.forEach(({ series }, at) => series.x.forEach((x, row) => {
      if (!found.has(x)) found.set(x, Array(shown.length).fill(null));
      found.get(x)[at] = series.y[row];
    }));
    const rows = [...found.entries()].sort((one, other) => one[0] - other[0]).map(([x, values]) => [x, ...values]);
    return { columns: [view.x, ...shown.map((one) => one.run.label)], rows };
  }

  function option(held, view) {
    const { axis, base, dash, tip } = Headway.charts;
    const shown = held.filter((one) => one.series && one.series.x.length && !one.run.hidden);
    const lines = [];
    const told = []; // what the cursor reads off
    for (const { run, series } of shown) {
      const colour = run.colour();
      if (view.band && series.min) lines.push(band(series, colour, view));
      const faint = { colour, width: 1, opacity: 0.25, z: 2, dash: "solid", faint: true };
      if (view.smooth) lines.push(line("raw:" + run.id, run.label, points(series, series.y, view), faint));
      const values = smooth(series.y, view.smooth);
      told.push({ run, x: series.x, values });
      lines.push(line("run:" + run.id, run.label, points(series, values, view), { colour, width: 1.6, opacity: 1, z: 3, dash: dash(run.at) }));
    }
    return {
      ...base(),
      xAxis: xAxis(view, axis),
      yAxis: yAxis(shown, view, axis),
      tooltip: {
        ...base().tooltip, trigger: "axis",
        axisPointer: { type: "line", snap: true, lineStyle: { color: Headway.theme.colour("muted") } },
        formatter: (found) => hovered(found, told, view, tip),
      },
      series: lines,
    };
  }

  function xAxis(view, axis) {
    const start = ({ min, max }) => (min > 0 && min < 0.05 * max ? 0 : min);
    const [from, to] = view.range || [start, "dataMax"];
    const shared = axis({ type: "value", min: from, max: to, splitLine: { show: false }, axisPointer: { label: { show: false } } });
    const inner = { showMinLabel: !view.range, showMaxLabel: false };
    return { ...shared, axisLabel: { ...shared.axisLabel, ...inner, formatter: (value) => axisNumber(value, view.x) } };
  }

  function yAxis(shown, view, axis) {
    const limits = view.log ? null : yLimits(shown, view);
    const shared = axis({ type: view.log ? "log" : "value", scale: true, splitNumber: 4, ...limits });
    const inner = limits ? { showMinLabel: false, showMaxLabel: false } : {};
    if (limits) shared.splitLine = { ...shared.splitLine, showMinLine: false, showMaxLine: false };
    return { ...shared, axisLabel: { ...shared.axisLabel, ...inner, formatter: Headway.format.tick } };
  }

  /** The scale follows the lines, not a band's single wild value; null leaves it to ECharts. */
  function yLimits(shown, view) {
    const seen = (series) => series.y.filter((_, at) => !view.range || (series.x[at] >= view.range[0] && series.x[at] <= view.range[1]));
    const found = shown.map(({ series }) => extent(seen(series))).filter(Boolean);
    const least = Math.min(...found.map((one) => one.least));
    const most = Math.max(...found.map((one) => one.most));
    if (!(least <= most)) return null;
    const flat = most - least <= 1e-6 * Math.abs(most); // rounding is no movement
    const room = flat ? Math.abs(most) * 0.1 || 1 : (most - least) * 0.05;
    return { min: least >= 0 ? Math.max(0, least - room) : least - room, max: most + room };
  }

  /** Returns the place of the number in `sorted` that is nearest to x; -1 where x lies beyond them all. */
  function nearest(sorted, x) {
    const last = sorted.length - 1;
    const spacing = (sorted[last] - sorted[0]) / Math.max(1, last);
    if (!(x >= sorted[0] - spacing && x <= sorted[last] + spacing)) return -1;
    const next = sorted.findIndex((one) => one >= x);
    if (next < 0) return last;
    return next > 0 && x - sorted[next - 1] < sorted[next] - x ? next - 1 : next;
  }

  /** Long runs have points at other places than short ones: each run tells its nearest, not ECharts' of the same place. */
  function hovered(found, told, view, tip) {
    const first = found.find((one) => one.seriesId.startsWith("run:"));
    if (!first) return "";
    const x = first.value[0];
    const lines = told.map(({ run, x: xs, values }) => [run.colour(), run.label, values[nearest(xs, x)]]).filter(([, , y]) => Number.isFinite(y));
    const shown = lines.slice(0, 16).map(([colour, name, y]) => [colour, name, Headway.format.number(y)]);
    return tip(view.x + " " + (view.x === "time" ? Headway.format.duration(x) : Headway.format.number(x)), shown);
  }

  /**
   * Returns the curves of a metric: {element, load(), draw(), grow(run, rows)}.
   * @param {Object} page the open page.
   * @param {string} name the metric's.
   * @param {Object} board runs() -> [{id, label, at, colour(), hidden}], view: {x, log, smooth, band, range}, zoom(range), tell(problem), group.
   */
  function make(page, name, board) {
    let held = [];
    let turn = 0;
    let frame = 0;
    const holes = h("span.note");
    const card = Headway.charts.card(page, {
      title: name, height: 210, tools: holes, draw: () => option(held, board.view),
      describe: () => describe(name, held, board.view), tabulate: () => tabulate(held, board.view),
      ready: (chart, box) => {
        dragToZoom(chart, box, board.zoom);
        chart.group = board.group;
        window.echarts.connect(board.group);
      },
    });
    card.element.dataset.metric = name;

    function draw() {
      holes.textContent = undrawn(held, board.view);
      card.update();
    }

    async function load() {
      const mine = (turn += 1);
      const { x, range } = board.view;
      const params = { x, from: range ? range[0] : "", to: range ? range[1] : "" };
      const runs = board.runs().filter((run) => run.metrics.includes(name));
      card.element.classList.add("is-loading");
      const found = await Promise.all(runs.map((run) => Headway.series.get(run.id, name, params, page.signal).catch(board.tell)));
      if (mine !== turn || page.signal.aborted) return;
      held = runs.map((run, at) => ({ run, series: found[at] }));
      card.element.classList.remove("is-loading");
      card.element.dataset.points = String(Math.max(0, ...held.map((one) => (one.series ? one.series.x.length : 0))));
      draw();
    }

    function grow(id, rows) {
      const one = held.find((each) => each.run.id === id);
      if (!one || board.view.range) return;
      if (!one.series || board.view.x === "tokens" || one.series.x.length + rows.length > MOST_GROWN) return later();
      append(one.series, rows, board.view.x);
      card.element.dataset.points = String(one.series.x.length);
      redraw();
    }

    /** Draws with the next frame, whatever comes until then. */
    function redraw() {
      if (!frame) frame = requestAnimationFrame(() => ((frame = 0), page.signal.aborted || draw()));
    }

    const later = Headway.dom.throttle(page, load, 1000);
    return { element: card.element, name, load, draw, grow };
  }

  function append(series, rows, x) {
    const last = series.x.length ? series.x[series.x.length - 1] : -Infinity;
    for (const [step, time, y] of rows) {
      const at = x === "time" ? time : step;
      if (at <= last) continue;
      series.x.push(at);
      series.y.push(y);
      if (series.min) {
        series.min.push(y);
        series.max.push(y);
      }
    }
  }

  Headway.curves = { make, axisNumber };
})((window.Headway = window.Headway || {}));
