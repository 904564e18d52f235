/* A table with headings that sort. It sorts by itself, or tells who can (the server) what is asked for. */
"use strict";
(function (Headway) {
  const { h, fill } = Headway.dom;

  /** Compares two values: numbers, then texts; what is missing comes last whichever way. */
  function compare(one, other, descending) {
    const gone = (value) => value === null || value === undefined || value === "" || Number.isNaN(value) || (Array.isArray(value) && !value.length);
    if (gone(one) || gone(other)) return gone(one) - gone(other);
    const way = descending ? -1 : 1;
    const numbers = typeof one === "number" && typeof other === "number";
    if (numbers) return way * (one - other);
    if (typeof one !== typeof other) return way * (typeof one === "number" ? -1 : 1);
    const [left, right] = [String(one).toLowerCase(), String(other).toLowerCase()];
    return way * (left < right ? -1 : left > right ? 1 : 0);
  }

  function classesOf(column) {
    return [column.numeric ? "numeric" : "", column.hide ? "hide-" + column.hide : "", column.class || ""].join(" ");
  }

  function heading(column, sort, pick) {
    const classes = classesOf(column);
    if (column.fixed) return h("th", { scope: "col", class: classes }, column.head || h("span.unseen", null, column.label));
    const open = sort.replace(/^-/, "") === column.key;
    const direction = !open ? null : sort.startsWith("-") ? "descending" : "ascending";
    const mark = h("span.sort-mark", { "aria-hidden": "true" }, direction === "descending" ? "↓" : direction ? "↑" : "");
    const button = h("button", { type: "button", title: column.title || null, onclick: () => pick(column) }, column.label, mark);
    return h("th", { scope: "col", class: classes, "aria-sort": direction, "data-column": column.key }, button);
  }

  function cell(column, row) {
    const classes = classesOf(column);
    const content = column.cell ? column.cell(row) : Headway.format.value(row[column.key]);
    return column.rowHead ? h("th", { scope: "row", class: classes }, content) : h("td", { class: classes }, content);
  }

  /** Returns the sort that a click on a column's heading asks for. */
  function nextSort(sort, column) {
    if (sort === column.key) return "-" + column.key;
    if (sort === "-" + column.key) return column.key;
    return column.numeric ? "-" + column.key : column.key;
  }

  /**
   * Returns a table: {element, show(rows, groupOf)}.
   * @param {Object} options
   *   columns: [{key, label, cell(row), value(row), numeric, rowHead, fixed, hide: "phone"|"narrow"}];
   *   caption: what it is, for screen readers; keyOf(row): a row's name;
   *   sort: "key" or "-key"; onSort(sort): sorts elsewhere (without it the table sorts by itself);
   *   sorted(sort): told how the table sorts by itself from now on.
   */
  function make(options) {
    const { columns, caption, keyOf = (row, at) => String(at), onSort } = options;
    let sort = options.sort || "";
    let rows = [];
    let headings = null;
    const head = h("thead");
    const body = h("tbody");
    const table = h("table", null, h("caption.unseen", null, caption), head, body);
    const element = h("div.table-box", { tabindex: "0", role: "region", "aria-label": caption }, table);

    function pick(column) {
      sort = nextSort(sort, column);
      drawHead();
      if (onSort) return void onSort(sort);
      if (options.sorted) options.sorted(sort);
      draw();
    }

    function drawHead() {
      const focused = head.contains(document.activeElement) && document.activeElement.closest("th").dataset.column;
      fill(head, h("tr", null, columns.map((column) => heading(column, sort, pick))));
      if (focused) head.querySelector(`[data-column="${CSS.escape(focused)}"] button`)?.focus();
    }

    function sorted() {
      const column = columns.find((one) => one.key === sort.replace(/^-/, ""));
      if (onSort || !column) return rows;
      const value = column.value || ((row) => row[column.key]);
      return [...rows].sort((one, other) => compare(value(one), value(other), sort.startsWith("-")));
    }

    function drawRow(row, at) {
      return h("tr", { "data-key": keyOf(row, at), class: row.rowClass || "" }, columns.map((column) => cell(column, row)));
    }

    function draw() {
      const focus = focusIn(body);
      let heard = null;
      const lines = [];
      sorted().forEach((row, at) => {
        const group = headings ? headings(row) : null;
        if (group && group.key !== heard) {
          heard = group.key;
          lines.push(h("tr.group", { "data-group": group.key }, h("th", { scope: "rowgroup", colspan: columns.length }, group.content)));
        }
        lines.push(drawRow(row, at));
      });
      fill(body, lines);
      if (focus) giveFocus(body, focus);
    }

    /** Shows rows; groupOf(row) -> {key, content} puts a heading where the key changes. */
    function show(given, groupOf) {
      rows = given;
      headings = groupOf || null;
      draw();
    }

    drawHead();
    return { element, show };
  }

  function focusIn(body) {
    const active = document.activeElement;
    const row = body.contains(active) && active.closest("tr");
    if (!row) return null;
    return { key: row.dataset.key, group: row.dataset.group, at: [...row.querySelectorAll("a, button, input")].indexOf(active) };
  }

  function giveFocus(body, focus) {
    const [name, key] = focus.group === undefined ? ["key", focus.key] : ["group", focus.group];
    const row = body.querySelector(`tr[data-${name}="${CSS.escape(key || "")}"]`);
    const target = row && row.querySelectorAll("a, button, input")[focus.at];
    if (target) target.focus({ preventScroll: true });
  }

  Headway.table = { make, compare, nextSort };
})((window.Headway = window.Headway || {}));
