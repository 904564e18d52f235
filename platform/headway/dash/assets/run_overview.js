/* A run in short: its headline, problems, recipe, manifest, checkpoints. */
"use strict";
(function (Headway) {
  const { h, fill, refill } = Headway.dom;
  const { parts } = Headway;
  const { bytes, duration, named, number, stamp, value, NOTHING } = Headway.format;

  function headline(run) {
    const { row } = run;
    const metric = row.metric === null || row.metric === undefined ? null : number(row.metric);
    const figures = [
      [row.metric_name || "metric", metric],
      ["step", row.step === null || row.step === undefined ? null : number(row.step) + (row.total_steps ? " of " + number(row.total_steps) : "")],
      ["time", row.duration_s ? duration(row.duration_s) : null],
      ["strategy", row.strategy],
      ["where", row.where],
    ].filter(([, text]) => text);
    return h("dl.headline", null, figures.map(([name, text]) => h("div", null, h("dt", null, name), h("dd", null, text))));
  }

  /** Returns an object of any depth as names and values, dotted. */
  function flat(object, before) {
    return Object.entries(object || {}).flatMap(([name, inner]) => {
      const path = before ? before + "." + name : name;
      const deeper = inner !== null && typeof inner === "object" && !Array.isArray(inner) && Object.keys(inner).length > 0;
      return deeper ? flat(inner, path) : [[path, inner]];
    });
  }

  /** `finds` holds what is typed in the fields of a page: it is drawn anew while its run goes on. */
  function searchable(title, pairs, finds) {
    const list = h("dl.facts.mono");
    const draw = (text) => {
      const shown = pairs.filter(([name, inner]) => (name + " " + value(inner)).toLowerCase().includes(text.toLowerCase()));
      fill(list, shown.map(([name, inner]) => h("div", null, h("dt", null, name), h("dd", null, named(name, inner)))));
    };
    const search = h("input", { type: "search", placeholder: "Find", "aria-label": "Find in " + title.toLowerCase(), value: finds.get(title) || "", oninput: () => {
      finds.set(title, search.value);
      draw(search.value);
    } });
    draw(search.value);
    return h("section.part", null, h("div.part-head", null, h("h2", null, title), pairs.length > 12 ? search : null),
      h("div.scrolls", { tabindex: "0", role: "group", "aria-label": title }, list));
  }

  const ENVIRONMENT = ["packages", "hardware", "python", "environment", "env", "machine", "devices", "gpus", "cpu", "host", "versions", "platform", "system"];

  function manifestParts(manifest, title, finds) {
    const pairs = flat(manifest).filter(([, inner]) => typeof inner !== "string" || inner.length < 2000);
    const isEnvironment = ([name]) => ENVIRONMENT.includes(name.split(".")[0]);
    const long = Object.entries(flatObject(manifest)).filter(([, inner]) => typeof inner === "string" && inner.length >= 2000);
    return {
      manifest: pairs.length ? searchable(title, pairs.filter((pair) => !isEnvironment(pair)), finds) : null,
      environment: pairs.some(isEnvironment) ? searchable("Environment", pairs.filter(isEnvironment), finds) : null,
      long: long.map(([name, text]) => h("details.part", null, h("summary", null, name), h("pre.log", { tabindex: "0" }, text))),
    };
  }

  function flatObject(object) {
    return Object.fromEntries(flat(object));
  }

  function problems(list) {
    if (!list || !list.length) return null;
    return h("section.part.problems", null, h("h2", null, "Problems"), h("ul", null, list.map((text) => h("li", null, text))));
  }

  function resumed(list) {
    if (!list || !list.length) return null;
    const lines = list.map((one) => h("li", null, typeof one === "object" && one !== null
      ? flat(one).map(([name, inner]) => name + " " + named(name, inner)).join(", ") : value(one)));
    return parts.section("Went on", h("ul.plain", null, lines));
  }

  /** Fills the tab that sums a run up. */
  function overview(page, run, box) {
    const { row } = run;
    const finds = (page.finds = page.finds || new Map());
    const foreign = row.source === "wandb";
    const facts = parts.facts([
      ["State", parts.state(row.state)], ["Reason", row.reason], [foreign ? "Project" : "Recipe", row.recipe], ["Started", row.started ? stamp(row.started) : null],
      ["Updated", row.updated ? stamp(row.updated) : null],
      ["Sweep", row.sweep ? h("a", { href: Headway.address.link("sweep", row.sweep) }, row.sweep) : null],
      ["Job", row.job ? h("a", { href: Headway.address.link("jobs", "", { job: row.job }) }, row.job) : null],
      ["Tags", (row.tags || []).length ? row.tags.map((tag) => h("span.tag", null, tag)) : null],
    ]);
    const status = flat(run.status).filter(([name]) => !["state", "reason"].includes(name));
    const settings = Object.entries(run.recipe || {});
    const { manifest, environment, long } = manifestParts(run.manifest || {}, foreign ? "Weights & Biases" : "Manifest", finds);
    refill(box, headline(run), problems(run.problems), h("div.columns", null,
      h("div", null, parts.section("Run", facts), status.length ? searchable("Status", status, finds) : null, resumed(run.resumed), manifest),
      h("div", null, settings.length ? searchable("Settings", settings, finds) : null, environment)), long);
  }

  /** Fills the tab of the recipe as it was written into the run folder. */
  function recipe(page, run, box) {
    if (!run.recipe_yaml) return fill(box, parts.message("This run has no recipe."));
    const text = h("pre.log.yaml", { tabindex: "0", role: "region", "aria-label": "Recipe" }, run.recipe_yaml);
    return fill(box, h("div.toolbar", null, parts.copyButton("Copy", () => run.recipe_yaml), h("span.note", null, "headway fit recipe.yaml repeats this run")), text);
  }

  /** Fills the tab of checkpoints. */
  function checkpoints(page, run, box) {
    if (!run.checkpoints.length) return fill(box, parts.message("No checkpoint is kept."));
    const marks = (row) => [row.best ? h("span.tag", null, "best") : null, row.newest ? h("span.tag", null, "newest") : null];
    const table = Headway.table.make({ caption: "Checkpoints", sort: "-step", keyOf: (row) => String(row.step), columns: [
      { key: "step", label: "Step", numeric: true, rowHead: true, cell: (row) => number(row.step) },
      { key: "kept", label: "Kept as", cell: marks, value: (row) => Number(Boolean(row.best)) },
      { key: "bytes", label: "Size", numeric: true, cell: (row) => bytes(row.bytes) },
      { key: "written", label: "Written", numeric: true, cell: (row) => (row.written ? stamp(row.written) : NOTHING) },
    ] });
    table.show(run.checkpoints);
    return fill(box, table.element);
  }

  Headway.runTabs = { ...Headway.runTabs, overview, recipe, checkpoints };
})((window.Headway = window.Headway || {}));
