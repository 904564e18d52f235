/* What the filter, the sort and the groups of the runs table mean. In an export the page does this itself. */
"use strict";
(function (Headway) {
  const GROWS = /acc|f1|bleu|auc|precision|recall|r2|score/i;

  /** Returns what a run has in a column, or null. */
  function value(row, column) {
    const own = column in row ? row[column] : row.values && row.values[column];
    return own === undefined ? null : own;
  }

  /** Returns the words of a filter; quotes hold blanks together. */
  function split(text) {
    const words = [];
    for (const match of text.matchAll(/(?:[^\s"]|"[^"]*"?)+/g)) {
      const word = match[0].replace(/"/g, "");
      if (word) words.push(word);
    }
    return words;
  }

  /** Returns {column, operator, wanted, negated} of one word; a word without operator has no column. */
  function parse(word) {
    const negated = word.length > 1 && word.startsWith("-");
    const rest = negated ? word.slice(1) : word;
    let at = rest.search(/[=<>]/);
    if (at < 0) at = rest.indexOf(":", rest.startsWith("best:") ? 5 : 0);
    if (at <= 0) return { column: null, wanted: rest.toLowerCase(), negated };
    return { column: rest.slice(0, at), operator: rest[at], wanted: rest.slice(at + 1).toLowerCase(), negated };
  }

  function text(anything) {
    if (anything === null) return "";
    return (Array.isArray(anything) ? anything.join(", ") : String(anything)).toLowerCase();
  }

  function holds(row, word) {
    if (word.column === null) {
      return ["id", "title", "recipe", "tags", "state"].some((column) => text(value(row, column)).includes(word.wanted));
    }
    const own = value(row, word.column);
    const [left, right] = [Number(own), Number(word.wanted)];
    const numbers = own !== null && own !== "" && !Array.isArray(own) && word.wanted !== "" && !Number.isNaN(left) && !Number.isNaN(right);
    if (word.operator === ":") return text(own).includes(word.wanted);
    if (word.operator === ">") return numbers && left > right;
    if (word.operator === "<") return numbers && left < right;
    if (Array.isArray(own) && own.some((one) => text(one) === word.wanted)) return true;
    return numbers ? left === right : own !== null && text(own) === word.wanted;
  }

  /** Returns the rows for which every word of a filter holds. */
  function filter(rows, q) {
    const words = split(q || "").map(parse);
    return rows.filter((row) => words.every((word) => holds(row, word) !== word.negated));
  }

  /** Returns a value as the name of its group; "" where there is none. */
  function groupName(own) {
    if (own === null || own === undefined) return "";
    return Array.isArray(own) ? own.join(", ") : String(own);
  }

  /** Returns the name of the group that a run is in. */
  function groupKey(row, column) {
    return groupName(value(row, column));
  }

  function groupsOf(rows, column) {
    const found = new Map();
    for (const row of rows) {
      const key = groupKey(row, column);
      const group = found.get(key) || { key: key || null, count: 0, best: null };
      group.count += 1;
      if (typeof row.metric === "number") {
        const better = GROWS.test(row.metric_name || "") ? row.metric > group.best : row.metric < group.best;
        if (group.best === null || better) group.best = row.metric;
      }
      found.set(key, group);
    }
    return [...found.values()];
  }

  /**
   * Returns an answer as /api/runs gives it, from the answer that has all rows.
   * @param {Object} all the answer to /api/runs?all=1.
   * @param {Object} wanted q, sort, group, page, size.
   */
  function answer(all, wanted) {
    const rows = filter(all.rows, wanted.q);
    const { compare } = Headway.table;
    const sort = wanted.sort || "-started";
    const key = sort.replace(/^-/, "");
    const order = (one, other) =>
      (wanted.group ? compare(groupKey(one, wanted.group), groupKey(other, wanted.group), false) : 0) ||
      compare(value(one, key), value(other, key), sort.startsWith("-")) ||
      (one.id < other.id ? -1 : 1);
    rows.sort(order);
    const [page, size] = [wanted.page || 0, wanted.size || 50];
    return {
      total: all.rows.length, matched: rows.length, page, size, rows: rows.slice(page * size, (page + 1) * size),
      groups: wanted.group ? groupsOf(rows, wanted.group) : null, columns: all.columns || [],
    };
  }

  Headway.query = { answer, filter, groupKey, groupName, value };
})((window.Headway = window.Headway || {}));
