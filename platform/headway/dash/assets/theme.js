/* Dark and light: what the system asks for, unless the reader chose. */
"use strict";
(function (Headway) {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const listeners = new Set();

  /** Returns whether the page is dark now. */
  function dark() {
    const chosen = Headway.store.read("theme", "system");
    return chosen === "system" ? system.matches : chosen === "dark";
  }

  function apply() {
    document.documentElement.dataset.theme = dark() ? "dark" : "light";
    listeners.forEach((listener) => listener());
  }

  /** Goes from dark to light or back; the choice that the system makes anyway is not kept. */
  function toggle() {
    const wanted = dark() ? "light" : "dark";
    Headway.store.write("theme", (wanted === "dark") === system.matches ? "system" : wanted);
    apply();
  }

  /** Calls `listener` whenever the theme changes, until the returned function is called. */
  function onChange(listener) {
    listeners.add(listener);
    return () => listeners.delete(listener);
  }

  /** Returns the colour that a variable of the style sheet has now. */
  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  }

  system.addEventListener("change", apply);
  apply();
  Headway.theme = { dark, toggle, onChange, colour };
})((window.Headway = window.Headway || {}));
