/* Images, tables and text that a run made. Text of a run is text here, whatever it looks like. */
"use strict";
(function (Headway) {
  const { h, fill } = Headway.dom;
  const MOST_ROWS = 500;

  function parseCsv(text) {
    const rows = [[]];
    let cell = "";
    let quoted = false;
    for (let at = 0; at < text.length; at += 1) {
      const letter = text[at];
      if (quoted && letter === '"' && text[at + 1] === '"') (cell += '"'), (at += 1);
      else if (letter === '"') quoted = !quoted;
      else if (letter === "," && !quoted) rows[rows.length - 1].push(cell), (cell = "");
      else if (letter === "\n" && !quoted) rows[rows.length - 1].push(cell.replace(/\r$/, "")), (cell = ""), rows.push([]);
      else cell += letter;
    }
    rows[rows.length - 1].push(cell);
    const filled = rows.filter((row) => row.length > 1 || row[0] !== "");
    return { columns: filled[0] || [], rows: filled.slice(1) };
  }

  /** Returns {columns, rows} of a table's file, or null if it is none. */
  function parseTable(path, text) {
    if (path.endsWith(".csv")) return parseCsv(text);
    let value = null;
    try {
      value = JSON.parse(text);
    } catch {
      return null; // shown as text instead
    }
    if (value && Array.isArray(value.columns) && Array.isArray(value.data)) return { columns: value.columns, rows: value.data };
    if (!Array.isArray(value) || !value.every((row) => row && typeof row === "object")) return null;
    const columns = [...new Set(value.flatMap(Object.keys))];
    return { columns, rows: value.map((row) => columns.map((column) => row[column] ?? null)) };
  }

  function tableOf(media, text) {
    const found = parseTable(media.path, text);
    if (!found) return h("pre.log", { tabindex: "0" }, text);
    const numeric = (at) => found.rows.every((row) => row[at] === null || row[at] === "" || !Number.isNaN(Number(row[at])));
    const columns = found.columns.map((label, at) => ({
      key: String(at), label: String(label), numeric: numeric(at), cell: (row) => Headway.format.value(row[at]),
      value: (row) => (numeric(at) && row[at] !== null && row[at] !== "" ? Number(row[at]) : row[at]),
    }));
    const table = Headway.table.make({ columns, caption: media.name });
    table.show(found.rows.slice(0, MOST_ROWS));
    const more = found.rows.length - MOST_ROWS;
    return [table.element, more > 0 ? h("p.note", null, `and ${more} more rows`) : null];
  }

  function large(run, media) {
    const image = h("img.whole", { src: Headway.api.fileAddress(run.id, media.path), alt: media.name + " at step " + media.step });
    Headway.parts.dialog(`${media.name}, step ${media.step ?? ""}`, [image]).classList.add("wide");
  }

  function show(run, media) {
    if (media.kind === "image") {
      const image = h("img", { src: Headway.api.fileAddress(run.id, media.path), alt: media.name + " at step " + media.step, loading: "lazy" });
      return h("button.picture", { type: "button", title: "Show large", onclick: () => large(run, media) }, image);
    }
    const box = h("div.media-text", null, Headway.parts.message("Reading …"));
    Headway.api.fileText(run.id, media.path).then(
      (text) => fill(box, media.kind === "table" ? tableOf(media, text) : h("pre.log", { tabindex: "0", role: "region", "aria-label": media.name }, text)),
      (problem) => fill(box, Headway.parts.message(problem.message, "bad")));
    return box;
  }

  /** Shows one thing at a time with the steps at which it was made. */
  function sequence(run, name, list) {
    const sorted = [...list].sort((one, other) => (one.step ?? 0) - (other.step ?? 0));
    const box = h("div.media-box");
    const label = h("output.note");
    const draw = (at) => {
      label.textContent = sorted[at].step === null || sorted[at].step === undefined ? "" : "step " + Headway.format.number(sorted[at].step);
      fill(box, show(run, sorted[at]));
    };
    const slider = h("input", { type: "range", min: 0, max: sorted.length - 1, value: sorted.length - 1, "aria-label": "Step of " + name,
      oninput: () => draw(Number(slider.value)) });
    draw(sorted.length - 1);
    const kind = sorted[0].kind;
    return h("figure.card.media", { class: kind === "image" ? "" : "is-wide" },
      h("figcaption.card-head", null, h("h2.card-title", null, name), h("div.card-tools", null, sorted.length > 1 ? slider : null, label)), box);
  }

  /** Returns a file's name without its ending and without the step in it: what is one thing at several steps. */
  function subject(media) {
    const plain = media.name.replace(/\.\w{1,5}$/, "");
    return plain.replace(/[-_.]?0*(\d+)$/, (whole, number) => (Number(number) === media.step ? "" : whole)) || media.name;
  }

  /** Fills the tab of what a run made. */
  function media(page, run, box) {
    if (!run.media.length) return fill(box, Headway.parts.message("No images, tables or texts."));
    const subjects = new Map();
    for (const one of run.media) {
      const key = JSON.stringify([one.kind, subject(one)]);
      subjects.set(key, [...(subjects.get(key) || []), one]);
    }
    return fill(box, h("div.cards", null, [...subjects.values()].map((list) => sequence(run, subject(list[0]), list))));
  }

  Headway.runTabs = { ...Headway.runTabs, media };
})((window.Headway = window.Headway || {}));
