/* The columns of the runs table: those that every run has, and any setting or metric by its dotted name. */
"use strict";
(function (Headway) {
  const { h } = Headway.dom;
  const { ago, duration, number, stamp, value, NOTHING } = Headway.format;
  const { link } = Headway.address;
  const { state, progress } = Headway.parts;

  function tags(row) {
    return h("span", { title: (row.tags || []).join(", ") || null }, (row.tags || []).map((tag) => h("span.tag", null, tag)));
  }

  function name(row) {
    const mark = row.source === "wandb" ? h("span.tag", { title: "an offline run of Weights & Biases" }, "W&B") : null;
    return h("span.run-name", null, h("a.main-link", { href: link("run", row.id), title: row.id }, row.title || row.id), mark);
  }

  function where(row) {
    return h("span", { title: row.where || null }, row.where || NOTHING);
  }

  function metric(row) {
    if (row.metric === null || row.metric === undefined) return NOTHING;
    return h("span", { title: row.metric_name || null }, number(row.metric));
  }

  const OWN = [
    { key: "id", label: "Run", rowHead: true, cell: name },
    { key: "state", label: "State", cell: (row) => state(row.state, row.reason) },
    { key: "recipe", label: "Recipe", hide: "phone" },
    { key: "strategy", label: "Strategy", hide: "phone" },
    { key: "where", label: "Where", hide: "narrow", class: "where", cell: where },
    { key: "step", label: "Step", numeric: true, hide: "phone", cell: (row) => progress(row.step, row.total_steps) },
    { key: "metric", label: "Metric", numeric: true, cell: metric },
    { key: "metric_name", label: "Metric’s name", hide: "phone" },
    { key: "duration_s", label: "Time", numeric: true, hide: "phone", cell: (row) => duration(row.duration_s) },
    { key: "started", label: "Started", numeric: true, hide: "narrow", cell: (row) => when(row.started) },
    { key: "updated", label: "Updated", numeric: true, hide: "narrow", cell: (row) => when(row.updated) },
    { key: "tags", label: "Tags", hide: "narrow", class: "tags", cell: tags },
    { key: "sweep", label: "Sweep", hide: "narrow", cell: (row) => (row.sweep ? h("a", { href: link("sweep", row.sweep) }, row.sweep) : NOTHING) },
    { key: "job", label: "Job", hide: "narrow" },
    { key: "reason", label: "Reason", hide: "narrow" },
  ];
  const SHOWN = ["id", "state", "recipe", "strategy", "where", "step", "metric", "duration_s", "started", "tags"];

  function when(time) {
    return time ? h("time", { title: stamp(time), datetime: new Date(time * 1000).toISOString() }, ago(time)) : NOTHING;
  }

  function other(key) {
    return { key, label: key, numeric: true, hide: "phone", cell: (row) => value(Headway.query.value(row, key)) };
  }

  /** Returns the columns of these keys, in this order. */
  function of(keys) {
    return keys.map((key) => OWN.find((column) => column.key === key) || other(key));
  }

  /** Returns the keys that a server must be asked for: all but a run's own. */
  function extra(keys) {
    return keys.filter((key) => !OWN.some((column) => column.key === key));
  }

  /** Opens the dialog in which columns are chosen; onChange(keys) at every click. */
  function chooser(known, chosen, onChange) {
    let keys = [...chosen];
    const all = [...OWN.map(({ key, label }) => [key, label]), ...known.filter((key) => extra([key]).length).map((key) => [key, key])];
    const flip = (key, on) => {
      keys = on ? [...keys, key] : keys.filter((one) => one !== key);
      onChange(keys);
    };
    const boxes = all.filter(([key]) => key !== "id").map(([key, label]) =>
      ({ label: label.toLowerCase(), element: Headway.parts.check(label, keys.includes(key), (on) => flip(key, on)) }));
    const search = h("input", { type: "search", placeholder: "Find a column", "aria-label": "Find a column", oninput: () => {
      const text = search.value.toLowerCase();
      boxes.forEach((box) => (box.element.hidden = !box.label.includes(text)));
    } });
    const usual = h("button", { type: "button", onclick: () => (onChange(SHOWN), dialog.close()) }, "The usual ones");
    const list = h("div.columns-list", null, boxes.map((box) => box.element));
    const dialog = Headway.parts.dialog("Columns", [search, list, h("div.buttons", null, usual)]);
    search.focus();
  }

  Headway.runsColumns = { of, extra, chooser, SHOWN, when, where };
})((window.Headway = window.Headway || {}));
