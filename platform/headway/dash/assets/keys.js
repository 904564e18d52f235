/* The keyboard: arrows go through rows, a slash goes to the filter, a question mark shows these keys. */
"use strict";
(function (Headway) {
  const { h } = Headway.dom;

  const KEYS = [
    ["↓ ↑ or j k", "next and previous row"],
    ["Enter", "open the row"],
    ["x", "choose the row for comparing"],
    ["c", "compare what is chosen"],
    ["/", "go to the filter"],
    ["Esc", "leave the filter, close a dialog, show the whole range of charts"],
    ["[ ]", "previous and next tab"],
    ["g r, g s, g j", "runs, sweeps, jobs"],
    ["t", "dark or light"],
    ["?", "show these keys"],
  ];

  let waitsForPage = false;

  function typing(target) {
    return target.closest("input:not([type=checkbox]):not([type=range]), textarea, select") !== null;
  }

  function links() {
    return [...document.querySelectorAll("main .main-link")].filter((link) => link.offsetParent !== null);
  }

  function moveRow(by) {
    const all = links();
    if (!all.length) return;
    const row = document.activeElement.closest("tr");
    const at = all.findIndex((link) => row && row.contains(link));
    const next = all[Math.max(0, Math.min(all.length - 1, at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by))];
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  }

  function chooseRow() {
    const row = document.activeElement.closest("tr");
    const box = row && row.querySelector("input[type=checkbox]");
    if (box) box.click();
  }

  function moveTab(by) {
    const all = [...document.querySelectorAll("main .tabs a")];
    const at = all.findIndex((tab) => tab.getAttribute("aria-current"));
    if (all[at + by]) location.hash = all[at + by].getAttribute("href");
  }

  function press(selector) {
    const found = document.querySelector(selector);
    if (found && !found.disabled) found.click();
  }

  /** Shows the keys. */
  function help() {
    if (document.querySelector("dialog[open]")) return;
    const rows = KEYS.map(([key, what]) => h("div", null, h("dt", null, h("kbd", null, key)), h("dd", null, what)));
    Headway.parts.dialog("Keys", [h("dl.facts", null, rows)]);
  }

  const ACTIONS = {
    ArrowDown: () => moveRow(1),
    ArrowUp: () => moveRow(-1),
    j: () => moveRow(1),
    k: () => moveRow(-1),
    x: chooseRow,
    c: () => press("#compare-chosen"),
    "/": () => document.querySelector("main input[type=search]")?.focus(),
    Escape: () => press("#whole-range"),
    "[": () => moveTab(-1),
    "]": () => moveTab(1),
    t: () => Headway.theme.toggle(),
    "?": help,
  };

  function pageKey(key) {
    const page = { r: "runs", s: "sweeps", j: "jobs" }[key];
    if (page) location.hash = Headway.address.link(page);
    return Boolean(page);
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (typing(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (waitsForPage) {
      waitsForPage = false;
      if (pageKey(event.key)) return;
    }
    if (event.key === "g") {
      waitsForPage = true;
      return;
    }
    const action = ACTIONS[event.key];
    if (!action) return;
    if (event.key.startsWith("Arrow") && !document.querySelector("main .main-link")) return;
    event.preventDefault();
    action();
  }

  /** Starts listening. */
  function start() {
    document.addEventListener("keydown", onKey);
  }

  Headway.keys = { start, help };
})((window.Headway = window.Headway || {}));
