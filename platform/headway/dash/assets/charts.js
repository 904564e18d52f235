/* A chart with its title, a text for those who cannot see it, and its numbers as a table. Drawn by ECharts. */
"use strict";
(function (Headway) {
  const { h, fill } = Headway.dom;
  const MOST_TABLE_ROWS = 400;
  let loading = null;

  /** Resolves to ECharts, which is loaded when the first chart comes into view. */
  function library() {
    if (!loading) {
      const version = document.querySelector("script[src*='assets/main.js']").src.split("?")[1];
      loading = Headway.api.loadScript("assets/vendor/echarts.min.js" + (version ? "?" + version : ""));
    }
    return loading.then(() => window.echarts);
  }

  /** Runs colours in order; the same for the same place. Chosen to be told apart with colour-blind eyes. */
  function palette(at) {
    const light = ["#0b6e63", "#c4541a", "#3b5bb5", "#a0307f", "#7a6a00", "#2a86b8", "#8a4b2a", "#5b5f66"];
    const dark = ["#4fc9b5", "#f0915c", "#8aa5ff", "#e58acb", "#d9c64a", "#74c5ee", "#d3a180", "#b4bac2"];
    return (Headway.theme.dark() ? dark : light)[at % 8];
  }

  /** Returns the dashes of the line in this place: full for the first eight runs. */
  function dash(at) {
    return ["solid", [6, 3], [2, 3]][Math.floor(at / 8) % 3];
  }

  /** Returns what all charts share, in the colours of the theme. */
  function base() {
    const { colour } = Headway.theme;
    return {
      animation: false,
      textStyle: { fontFamily: colour("sans"), fontSize: 11, color: colour("ink") },
      grid: { left: 8, right: 14, top: 10, bottom: 4, containLabel: true },
      tooltip: {
        confine: true, className: "chart-tip", backgroundColor: colour("surface"), borderColor: colour("line"),
        padding: [6, 9], textStyle: { color: colour("ink"), fontSize: 12 }, transitionDuration: 0,
      },
    };
  }

  /** Returns an axis in the colours of the theme, with `more` on top. */
  function axis(more) {
    const { colour } = Headway.theme;
    return {
      axisLine: { show: false, lineStyle: { color: colour("line") } },
      axisTick: { show: false },
      axisLabel: { color: colour("muted"), fontSize: 11, hideOverlap: true },
      splitLine: { lineStyle: { color: colour("hair") } },
      nameTextStyle: { color: colour("muted"), fontSize: 11 },
      ...more,
    };
  }

  /** Returns colours from low to high for heat-maps and parallel lines, in the theme. */
  function scale() {
    return Headway.theme.dark()
      ? ["#1d2b53", "#29508c", "#2a7f9e", "#3fae93", "#9fd17a", "#f5e663"]
      : ["#2b1a55", "#2f4f8f", "#1f7f93", "#3aa97c", "#a3cf5f", "#f3e34a"];
  }

  /** Returns colours from good to bad, to be told apart as thin lines. */
  function ranking() {
    return Headway.theme.dark() ? ["#4fe0c8", "#6fa9a0", "#8d7a66", "#c9683a"] : ["#046357", "#4f9e92", "#c3ae88", "#d9772f"];
  }

  /** Returns lines of a tooltip as an element: [[colour, name, value]] under a title. */
  function tip(title, lines) {
    return h("div.tip", null, h("div.tip-title", null, title), lines.map(([colour, name, value]) =>
      h("div.tip-line", null, h("span.tip-mark", { style: { background: colour || "transparent" } }), h("span.tip-name", null, name),
        h("span.tip-value", null, value))));
  }

  function numbersTable(data, caption) {
    const columns = data.columns.map((label, at) => ({
      key: String(at), label, numeric: true, cell: (row) => Headway.format.value(row[at]), value: (row) => row[at],
    }));
    const table = Headway.table.make({ columns, caption });
    const every = Math.max(1, Math.ceil(data.rows.length / MOST_TABLE_ROWS));
    table.show(data.rows.filter((_, at) => at % every === 0));
    const note = every > 1 ? h("p.note", null, `every ${every}th of ${Headway.format.count(data.rows.length, "row")}`) : null;
    return [table.element, note];
  }

  /**
   * Returns a chart's card: {element, update(), chart()}.
   * @param {Object} page the open page; the chart goes when it is left.
   * @param {Object} options
   *   title: text; height: of the drawing in pixels; draw(): the ECharts option;
   *   describe(): one sentence; tabulate(): {columns, rows} of its numbers;
   *   ready(chart, box): called once when the drawing is there; tools: more elements of the head.
   */
  function card(page, options) {
    const box = h("div.chart", { role: "img", style: { height: (options.height || 220) + "px" } });
    const numbers = h("div.chart-table", { hidden: true });
    const toggle = h("button.quiet", { type: "button", "aria-expanded": "false", onclick: toggleTable }, "Table");
    toggle.setAttribute("aria-label", "Show " + options.title + " as table");
    const title = h("h2.card-title", { title: options.title }, options.title);
    const tools = h("div.card-tools", null, options.tools || null, options.tabulate ? toggle : null);
    const element = h("figure.card", null, h("figcaption.card-head", null, title, tools), box, numbers);
    let chart = null;
    let started = false;

    function toggleTable() {
      numbers.hidden = !numbers.hidden;
      toggle.setAttribute("aria-expanded", String(!numbers.hidden));
      drawTable();
    }

    function drawTable() {
      if (!numbers.hidden) fill(numbers, numbersTable(options.tabulate(), options.title));
    }

    function draw(anew) {
      box.setAttribute("aria-label", options.describe ? options.describe() : options.title);
      if (options.heightNow) box.style.height = options.heightNow() + "px";
      if (!chart) return;
      if (options.heightNow) chart.resize();
      chart.setOption(options.draw(), anew ? { notMerge: true } : { replaceMerge: ["series"] });
      drawTable();
    }

    async function begin() {
      if (started) return;
      started = true;
      const echarts = await library();
      if (page.signal.aborted) return;
      chart = echarts.init(box, null, { renderer: "canvas" });
      draw(true);
      if (options.ready) options.ready(chart, box);
    }

    const seen = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && begin(), { rootMargin: "200px" });
    const sized = new ResizeObserver(() => chart && box.clientWidth > 0 && chart.resize());
    seen.observe(box);
    sized.observe(box);
    const offTheme = Headway.theme.onChange(() => draw(true));
    page.onLeave(() => {
      seen.disconnect();
      sized.disconnect();
      offTheme();
      if (chart) chart.dispose();
    });
    draw(false);
    return { element, update: (anew) => draw(Boolean(anew)), chart: () => chart };
  }

  Headway.charts = { library, palette, dash, base, axis, scale, ranking, tip, card };
})((window.Headway = window.Headway || {}));
