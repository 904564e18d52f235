/* The curves of one run or several, by the first part of their names, with what they share: axis, smoothing, zoom, cursor. */
"use strict";
(function (Headway) {
  const { h, fill, debounce } = Headway.dom;
  const ORDER = ["train", "val", "test", "perf"];
  let boards = 0;

  function prefix(name) {
    return name.includes("/") ? name.slice(0, name.indexOf("/")) : "other";
  }

  function place(group) {
    const at = ORDER.indexOf(group);
    return group === "health" ? 100 : at < 0 ? 50 : at;
  }

  /** Returns [[prefix, names]] in the order in which people look: train, val, test, perf, the rest, health. */
  function grouped(names) {
    const groups = new Map();
    for (const name of names) groups.set(prefix(name), [...(groups.get(prefix(name)) || []), name]);
    const loss = (name) => (name.endsWith("/loss") ? 0 : 1);
    const natural = (one, other) => loss(one) - loss(other) || one.localeCompare(other, "en", { numeric: true });
    const pairs = [...groups.entries()].map(([group, list]) => [group, list.sort(natural)]);
    return pairs.sort(([one], [other]) => place(one) - place(other) || natural(one, other));
  }

  function readView() {
    const { params } = Headway.address.now();
    const range = (params.range || "").split("..").map(Number);
    return {
      x: ["step", "time", "tokens"].includes(params.x) ? params.x : "step",
      log: params.log === "1", smooth: Math.min(0.99, Math.max(0, Number(params.smooth) || 0)),
      band: params.band !== "0", range: range.length === 2 && range[1] > range[0] ? range : null, only: params.metric || "",
    };
  }

  function writeView(view) {
    Headway.address.change({
      x: view.x === "step" ? "" : view.x, log: view.log ? 1 : "", smooth: view.smooth || "", band: view.band ? "" : 0,
      range: view.range ? view.range.map((end) => Number(end.toPrecision(6))).join("..") : "", metric: view.only,
    });
  }

  function toolbar(view, act) {
    const { choice, check } = Headway.parts;
    const amount = h("output", null, view.smooth.toFixed(2));
    const slider = h("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: view.smooth, "aria-label": "Smoothing", oninput: () => {
      amount.textContent = Number(slider.value).toFixed(2);
      act.set({ smooth: Number(slider.value) });
    } });
    const only = h("input", { type: "search", value: view.only, placeholder: "metric", "aria-label": "Show metrics that contain",
      oninput: debounce(() => act.only(only.value), 150) });
    const ends = rangeFields(view, act.zoom);
    const whole = h("button.quiet", { type: "button", id: "whole-range", onclick: () => act.zoom(null), disabled: !view.range }, "Whole range");
    const element = h("div.toolbar", null,
      choice("Horizontal axis", [["step", "Step"], ["time", "Time"], ["tokens", "Tokens"]], view.x, act.axis),
      check("Log scale", view.log, (log) => act.set({ log })),
      h("label.field", null, h("span", null, "Smoothing"), slider, amount),
      check("Band", view.band, (band) => act.set({ band })), only, ends.element, whole);
    const show = () => {
      whole.disabled = !view.range;
      ends.show(view.range);
    };
    show();
    return { element, show };
  }

  /** The range in figures: for those who do not drag, and for exact ends. */
  function rangeFields(view, zoom) {
    const field = (label) => h("input", { type: "number", step: "any", placeholder: label.toLowerCase(), "aria-label": label, onchange: take });
    const [from, to] = [field("From"), field("To")];
    function take() {
      const range = [Number(from.value), Number(to.value)];
      if (from.value !== "" && to.value !== "" && range[0] < range[1]) zoom(range);
      else if (from.value === "" && to.value === "") zoom(null);
    }
    const show = (range) => {
      from.value = range ? Number(range[0].toPrecision(6)) : "";
      to.value = range ? Number(range[1].toPrecision(6)) : "";
    };
    return { element: h("span.range", null, from, "–", to), show };
  }

  /**
   * Returns a board: {element, grow(run, series), reload(), draw()}.
   * @param {Object} page the open page.
   * @param {Array} runs [{id, label, at, metrics, hidden, colour()}].
   */
  function make(page, runs) {
    boards += 1;
    const view = readView();
    const board = { view, runs: () => runs, group: "board-" + boards, zoom, tell };
    const curves = new Map();
    const sections = h("div.curves");
    const trouble = h("div");
    const troubles = new Set();
    const act = { set, axis, only, zoom };
    const bar = toolbar(view, act);

    function set(changes) {
      Object.assign(view, changes);
      writeView(view);
      curves.forEach((curve) => curve.draw());
    }

    /** Says why there are no curves, once for each run; the answer that is missing is null. */
    function tell(problem) {
      if (page.signal.aborted || troubles.has(problem.message)) return null;
      troubles.add(problem.message);
      trouble.append(Headway.parts.message(problem.message, "bad"));
      return null;
    }

    function reload() {
      troubles.clear();
      fill(trouble);
      curves.forEach((curve) => curve.load());
    }

    function axis(x) {
      Object.assign(view, { x, range: null });
      zoomed();
    }

    function zoom(range) {
      if (!range && !view.range) return;
      view.range = range;
      zoomed();
    }

    function zoomed() {
      bar.show();
      writeView(view);
      curves.forEach((curve) => curve.draw());
      reload();
    }

    function only(text) {
      view.only = text;
      writeView(view);
      drawSections();
    }

    function curveOf(name) {
      if (!curves.has(name)) {
        const curve = Headway.curves.make(page, name, board);
        curves.set(name, curve);
        whenSeen(page, curve.element, curve.load);
      }
      return curves.get(name).element;
    }

    function drawSections() {
      const names = [...new Set(runs.flatMap((run) => run.metrics))].filter((name) => name.toLowerCase().includes(view.only.toLowerCase()));
      if (!names.length) return fill(sections, Headway.parts.message(view.only ? "No metric has this in its name." : "No rows of metrics yet."));
      return fill(sections, grouped(names).map(([group, list]) => {
        const cards = h("div.cards");
        const open = group !== "health" || Boolean(view.only);
        const show = () => part.open && !cards.children.length && fill(cards, list.map(curveOf));
        const part = h("details.group", { open, ontoggle: show }, h("summary", null, group, h("span.count", null, list.length)), cards);
        show();
        return part;
      }));
    }

    /** Takes new rows of a run: {metric: [[step, time, y]]}. */
    function grow(id, series) {
      const run = runs.find((one) => one.id === id);
      if (!run) return;
      const fresh = Object.keys(series).filter((name) => !run.metrics.includes(name));
      if (fresh.length) {
        run.metrics.push(...fresh);
        drawSections();
        fresh.forEach((name) => curves.get(name)?.load());
      }
      Object.entries(series).forEach(([name, rows]) => curves.get(name)?.grow(id, rows));
    }

    drawSections();
    return { element: h("div.board", null, bar.element, trouble, sections), grow, reload, draw: () => curves.forEach((curve) => curve.draw()) };
  }

  function whenSeen(page, element, work) {
    const observer = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      work();
    }, { rootMargin: "300px" });
    observer.observe(element);
    page.onLeave(() => observer.disconnect());
  }

  Headway.curveBoard = { make, grouped };
})((window.Headway = window.Headway || {}));
