/* How values were spread, as W&B's histograms tell it: bins by steps in colours or, of a single step, as bars. */
"use strict";
(function (Headway) {
  const { h, fill } = Headway.dom;
  const { number } = Headway.format;
  const POINTS = 200;
  const SEARCHED_FROM = 7;
  const MOST_LABELS = 9;
  const NOTHING_YET = { steps: [], edges: [], shares: [] };

  function percent(share) {
    return number(Number((100 * share).toPrecision(3))) + " %";
  }

  function between(found, bin) {
    return number(found.edges[bin]) + " to " + number(found.edges[bin + 1]);
  }

  function middles(found) {
    return found.edges.slice(1).map((edge, bin) => Number(((edge + found.edges[bin]) / 2).toPrecision(3)));
  }

  /** Returns [place of the step, bin, share] of each bin that holds anything; an empty one has no colour. */
  function cells(found) {
    return found.shares.flatMap((row, at) => row.map((share, bin) => [at, bin, share])).filter(([, , share]) => share > 0);
  }

  /** Colours go up to the share that all but the fullest hundredth of the bins keep to. */
  function most(list) {
    const sorted = list.map((cell) => cell[2]).sort((one, other) => one - other);
    return sorted[Math.min(sorted.length - 1, Math.floor(0.99 * sorted.length))];
  }

  function heatMap(found) {
    const { axis, base, scale, tip } = Headway.charts;
    const { colour } = Headway.theme;
    const list = cells(found);
    const max = list.length ? most(list) : 1;
    const bins = axis({ type: "category", data: middles(found), splitLine: { show: false } });
    return {
      ...base(),
      grid: { left: 8, right: 14, top: 4, bottom: 46, containLabel: true },
      xAxis: axis({ type: "category", data: found.steps, splitLine: { show: false }, axisLabel: { color: colour("muted"), fontSize: 11, formatter: (step) => Headway.format.short(Number(step)) } }),
      yAxis: { ...bins, axisLabel: { ...bins.axisLabel, interval: Math.ceil((found.edges.length - 1) / MOST_LABELS) - 1, formatter: (middle) => number(Number(middle)) } },
      visualMap: { type: "continuous", dimension: 2, min: 0, max, calculable: false, orient: "horizontal", left: "center", bottom: 2, itemHeight: 130, itemWidth: 9,
        text: [percent(max), "0 %"], textStyle: { color: colour("muted"), fontSize: 11 }, inRange: { color: scale() } },
      tooltip: { ...base().tooltip, trigger: "item", formatter: ({ value }) => tip("step " + number(found.steps[value[0]]), [["", between(found, value[1]), percent(value[2])]]) },
      series: [{ type: "heatmap", data: list, progressive: 0, encode: { x: 0, y: 1, value: 2 }, emphasis: { disabled: true } }],
    };
  }

  function bars(found) {
    const { axis, base, palette, tip } = Headway.charts;
    const { colour } = Headway.theme;
    const shares = axis({ type: "value" });
    return {
      ...base(),
      xAxis: axis({ type: "category", data: middles(found), splitLine: { show: false }, axisLabel: { color: colour("muted"), fontSize: 11, hideOverlap: true, formatter: (middle) => number(Number(middle)) } }),
      yAxis: { ...shares, axisLabel: { ...shares.axisLabel, formatter: percent } },
      tooltip: { ...base().tooltip, trigger: "item", formatter: ({ dataIndex, value }) => tip("step " + number(found.steps[0]), [["", between(found, dataIndex), percent(value)]]) },
      series: [{ type: "bar", data: found.shares[0] || [], barCategoryGap: "6%", itemStyle: { color: palette(0) }, emphasis: { disabled: true } }],
    };
  }

  /** Returns the value below which a share of a step's values lies. */
  function quantile(found, row, share) {
    let below = 0;
    for (let bin = 0; bin < row.length; bin += 1) {
      if (row[bin] > 0 && below + row[bin] >= share) {
        return found.edges[bin] + ((share - below) / row[bin]) * (found.edges[bin + 1] - found.edges[bin]);
      }
      below += row[bin];
    }
    return found.edges[found.edges.length - 1];
  }

  function describe(name, found) {
    const last = found.steps.length - 1;
    if (last < 0) return name + ": no numbers.";
    const kind = last ? "Heat-map" : "Bars";
    const over = last ? ` over ${Headway.format.count(last + 1, "step")}` : "";
    const [low, high] = [0.25, 0.75].map((share) => number(quantile(found, found.shares[last], share)));
    return `${kind} of how ${name} is spread in ${Headway.format.count(found.edges.length - 1, "bin")} from ${number(found.edges[0])} to ${number(found.edges[found.edges.length - 1])}${over}.`
      + ` At step ${number(found.steps[last])} the middle half lies between ${low} and ${high}.`;
  }

  function tabulate(found) {
    const names = found.edges.slice(1).map((_, bin) => between(found, bin));
    return { columns: ["step", ...names], rows: found.steps.map((step, at) => [step, ...found.shares[at]]) };
  }

  function chartOf(page, run, name) {
    let found = NOTHING_YET;
    const trouble = h("div");
    const chart = Headway.charts.card(page, {
      title: name, height: 260, draw: () => (found.steps.length === 1 ? bars(found) : heatMap(found)),
      describe: () => describe(name, found), tabulate: () => tabulate(found), ready: load,
    });
    chart.element.append(trouble);
    chart.element.dataset.histogram = name;
    async function load() {
      try {
        found = await Headway.api.get("api/run/" + run.id + "/histogram", { name, points: POINTS }, page.signal);
      } catch (problem) {
        if (!page.signal.aborted) fill(trouble, Headway.parts.message(problem.message, "bad"));
        return;
      }
      chart.element.dataset.steps = String(found.steps.length);
      chart.update(true);
    }
    return chart.element;
  }

  /** Fills the tab of a run's histograms. */
  function histograms(page, run, box) {
    const names = [...(run.histograms || [])].sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
    if (!names.length) return fill(box, Headway.parts.message("This run logged no histograms."));
    const charts = new Map();
    const cards = h("div.cards.wide");
    const chart = (name) => {
      if (!charts.has(name)) charts.set(name, chartOf(page, run, name));
      return charts.get(name);
    };
    const draw = (text) => {
      const shown = names.filter((name) => name.toLowerCase().includes(text.toLowerCase()));
      fill(cards, shown.length ? shown.map(chart) : Headway.parts.message("No histogram has this in its name."));
    };
    const search = h("input", { type: "search", placeholder: "name", "aria-label": "Show histograms that contain", oninput: () => draw(search.value) });
    draw("");
    return fill(box, names.length < SEARCHED_FROM ? null : h("div.toolbar", null, search), cards);
  }

  Headway.runTabs = { ...Headway.runTabs, histograms };
})((window.Headway = window.Headway || {}));
