/* Starts the page and goes from one view to the next as the address changes. */
"use strict";
(function (Headway) {
  const { h, fill } = Headway.dom;
  const NAMES = { runs: "Runs", run: "Run", compare: "Compare", sweeps: "Sweeps", sweep: "Sweep", jobs: "Jobs" };
  let leave = () => {};

  /** A view's own place: where it draws, what it was asked for, and what to undo when it is left. */
  function newPage(address) {
    const gone = new AbortController();
    const root = h("div.page", { "data-page": address.page });
    const works = [];
    const page = {
      ...address, root, signal: gone.signal,
      onLeave: (work) => (gone.signal.aborted ? work() : works.push(work)),
      title: (text) => (document.title = text + " – headway"),
    };
    leave = () => {
      gone.abort();
      works.splice(0).forEach((work) => work());
    };
    return page;
  }

  function markOpen(name) {
    const part = { run: "runs", compare: "runs", sweep: "sweeps" }[name] || name;
    document.querySelectorAll(".pages a").forEach((link) => {
      if (link.getAttribute("href") === "#/" + part) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    });
  }

  async function open() {
    const address = Headway.address.now();
    leave();
    document.querySelectorAll("dialog[open]").forEach((dialog) => dialog.close());
    const page = newPage(address);
    const show = Headway.pages[address.page];
    page.title(NAMES[address.page] || "Nothing here");
    markOpen(address.page);
    fill(document.getElementById("main"), page.root);
    try {
      if (show) await show(page);
      else fill(page.root, Headway.parts.message("There is no such page: " + address.page));
    } catch (problem) {
      if (!page.signal.aborted) fill(page.root, failure(problem));
    }
    if (!page.signal.aborted) page.root.dataset.ready = "yes";
  }

  function failure(problem) {
    if (problem.status === 401) return signIn();
    return [Headway.parts.message(problem.message, "bad"), h("button", { type: "button", onclick: open }, "Try again")];
  }

  function signIn() {
    const input = h("input", { type: "password", "aria-label": "Token", autocomplete: "off" });
    const form = h("form.sign-in", { onsubmit: async (event) => {
      event.preventDefault();
      Headway.store.keepToken(input.value.trim());
      await begin();
    } }, h("p", null, "This server asks for the token that headway dash printed."), input, h("button.primary", null, "Go on"));
    return form;
  }

  function drawTop() {
    const about = Headway.about || {};
    const theme = h("button.quiet", { type: "button", id: "theme", title: "Dark or light (t)", "aria-label": "Dark or light", onclick: () => Headway.theme.toggle() },
      h("span.theme-mark", { "aria-hidden": "true" }));
    const keys = h("button.quiet", { type: "button", title: "Keys (?)", "aria-label": "Show keys", onclick: () => Headway.keys.help() }, "?");
    const live = Headway.api.exported ? h("span.note", null, "exported " + (about.started ? Headway.format.date(about.started) : "")) : h("span.live", { id: "live" });
    fill(document.getElementById("top-end"), about.runs_folder ? h("span.folder", { title: about.runs_folder }, about.runs_folder) : null, live, theme, keys);
  }

  async function begin() {
    const token = Headway.store.token();
    try {
      Headway.about = await Headway.api.get("api/about");
      if (Headway.about.token_needed && token) await Headway.api.post("api/login");
    } catch (problem) {
      if (problem.status === 401 && token) await Headway.api.post("api/login").catch(() => null);
      Headway.about = await Headway.api.get("api/about").catch(() => ({}));
    }
    drawTop();
    return open();
  }

  const token = Headway.address.takeToken();
  if (token) Headway.store.keepToken(token);
  window.addEventListener("hashchange", () => {
    const fresh = Headway.address.takeToken();
    if (fresh) Headway.store.keepToken(fresh);
    open();
  });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  });
  Headway.keys.start();
  drawTop();
  begin();
})((window.Headway = window.Headway || {}));
