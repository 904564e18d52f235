/* How a net fares inside, layer by layer and step by step, as heat-maps. */
"use strict";
(function (Headway) {
  const { h, fill } = Headway.dom;
  const { number } = Headway.format;

  // What a kind says, in words, and whether its colours follow the exponent.
  const KINDS = {
    grad_norm: ["Gradient flow", "norm of each layer's gradient", true],
    update_ratio: ["Update to weight", "size of a step's update over the size of the weights; near 0.001 is healthy", true],
    activation_std: ["Activation spread", "standard deviation of each layer's outputs", true],
    activation_mean: ["Activation mean", "mean of each layer's outputs", false],
    saturation: ["Saturation", "share of outputs at the flat ends of the activation", false],
    saturated: ["Saturation", "share of outputs at the flat ends of the activation", false],
    dead: ["Dead units", "share of units that give zero for every sample", false],
    dead_units: ["Dead units", "share of units that give zero for every sample", false],
    spectral_radius: ["Recurrent spectrum", "largest eigenvalue of the recurrent weights; 1 keeps what was", false],
    spectrum: ["Recurrent spectrum", "eigenvalues of the recurrent weights; 1 keeps what was", false],
  };

  function about(kind) {
    return KINDS[kind] || [kind.replace(/_/g, " "), "", null];
  }

  function numbers(values) {
    return values.flat().filter((value) => value !== null && Number.isFinite(value));
  }

  /** Colours follow the exponent where a kind says so or, for kinds unknown here, where values span a hundredfold. */
  function isLog(kind, found) {
    const told = about(kind)[2];
    if (!found.length || Math.max(...found) <= 0) return false;
    if (told !== null) return told;
    const positive = found.filter((value) => value > 0);
    return positive.length === found.length && Math.max(...positive) / Math.min(...positive) > 100;
  }

  function cells(health, log) {
    const list = [];
    health.values.forEach((row, layer) => row.forEach((value, at) => {
      if (value === null || !Number.isFinite(value) || (log && value <= 0)) return;
      list.push([at, layer, log ? Math.log10(value) : value, value]);
    }));
    return list;
  }

  function limits(list) {
    const sorted = list.map((cell) => cell[2]).sort((one, other) => one - other);
    const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
    const [least, most] = [at(0.01), at(0.99)]; // one wild value does not take all colours
    return least === most ? [least - 0.5, most + 0.5] : [least, most];
  }

  function option(health, log) {
    const { axis, base, scale, tip } = Headway.charts;
    const { colour } = Headway.theme;
    const list = cells(health, log);
    const [min, max] = list.length ? limits(list) : [0, 1];
    const label = (value) => number(log ? 10 ** value : value);
    return {
      ...base(),
      grid: { left: 8, right: 14, top: 4, bottom: 46, containLabel: true },
      xAxis: axis({ type: "category", data: health.steps, splitLine: { show: false }, axisLabel: { color: colour("muted"), fontSize: 11, formatter: (step) => Headway.format.short(Number(step)) } }),
      yAxis: axis({ type: "category", data: health.layers, inverse: true, splitLine: { show: false }, axisLabel: { color: colour("muted"), fontSize: 10.5, width: 130, overflow: "truncate", interval: health.layers.length > 48 ? "auto" : 0 } }),
      visualMap: { type: "continuous", dimension: 2, min, max, calculable: false, orient: "horizontal", left: "center", bottom: 2, itemHeight: 130, itemWidth: 9,
        text: [label(max), label(min)], textStyle: { color: colour("muted"), fontSize: 11 }, inRange: { color: scale() } },
      tooltip: { ...base().tooltip, trigger: "item", formatter: ({ value }) => tip(health.layers[value[1]], [["", "step " + number(health.steps[value[0]]), number(value[3])]]) },
      series: [{ type: "heatmap", data: list, progressive: 0, encode: { x: 0, y: 1, value: 2 }, emphasis: { disabled: true } }],
    };
  }

  function describe(kind, health) {
    const found = numbers(health.values);
    if (!found.length) return about(kind)[0] + ": no numbers yet.";
    const last = health.layers.map((layer, at) => {
      const row = health.values[at].filter((value) => value !== null);
      return [layer, row[row.length - 1]];
    }).filter(([, value]) => value !== undefined).sort((one, other) => one[1] - other[1]);
    const ends = last.length ? ` At the end lowest in ${last[0][0]} (${number(last[0][1])}), highest in ${last[last.length - 1][0]} (${number(last[last.length - 1][1])}).` : "";
    return `Heat-map of ${about(kind)[0].toLowerCase()} for ${Headway.format.count(health.layers.length, "layer")} over ${Headway.format.count(health.steps.length, "step")}.` + ends;
  }

  function tabulate(health) {
    return { columns: ["step", ...health.layers], rows: health.steps.map((step, at) => [step, ...health.values.map((row) => row[at])]) };
  }

  function mapOf(page, run, kind) {
    let health = { layers: run.health.layers, steps: [], values: [] };
    let log = false;
    const tall = () => Math.max(150, Math.min(900, health.layers.length * 17 + 60));
    const chart = Headway.charts.card(page, {
      title: about(kind)[0], height: tall(), heightNow: tall, draw: () => option(health, log),
      describe: () => describe(kind, health), tabulate: () => tabulate(health), tools: h("span.note", null, about(kind)[1]),
    });
    chart.element.dataset.kind = kind;
    async function load() {
      health = await Headway.api.get("api/run/" + run.id + "/health", { kind, points: 200 }, page.signal);
      log = isLog(kind, numbers(health.values));
      chart.element.dataset.cells = String(cells(health, log).length);
      chart.update(true);
    }
    return { element: chart.element, load };
  }

  function place(kind) {
    const at = Object.keys(KINDS).indexOf(kind);
    return at < 0 ? 99 : at;
  }

  /** Fills the tab of a run's health; returns what new rows do. */
  async function health(page, run, box) {
    const kinds = [...((run.health && run.health.kinds) || [])].sort((one, other) => place(one) - place(other));
    if (!kinds.length) {
      fill(box, Headway.parts.message("This run records nothing of its layers. Where a recipe asks for it, gradient norms, updates and activations of every layer appear here."));
      return null;
    }
    const maps = kinds.map((kind) => mapOf(page, run, kind));
    fill(box, h("div.cards.wide", null, maps.map((map) => map.element)));
    await Promise.all(maps.map((map) => map.load()));
    const again = Headway.dom.throttle(page, () => Promise.all(maps.map((map) => map.load().catch(() => null))), 2000);
    return { grow: (series) => Object.keys(series).some((name) => name.startsWith("health/")) && again(), reload: again };
  }

  Headway.runTabs = { ...Headway.runTabs, health };
})((window.Headway = window.Headway || {}));
