/* Starts the page and goes from one view to the next as the address changes. */
"use strict";
(function (Headway) {
  const { h, fill } = Headway.dom;
  const NAMES = { runs: "Runs", run: "Run", compare: "Compare", sweeps: "Sweeps", sweep: "Sweep", jobs: "Jobs" };
  const AGAIN_MS = 3000;
  const places = new Map(); // how far down an address was when it was left
  let leave = () => {};
  let isFirst = true;
  let traverses = false; // whether the browser goes back or forward

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
    const goesBack = traverses && location.hash;
    traverses = false;
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
      if (page.signal.aborted) return;
      leave(); // what it had begun to listen to
      fail(page, problem);
      arrive(page, "");
    }
    if (!page.signal.aborted) arrive(page, goesBack);
  }

  /** Who comes back finds the place that was left; who reads by ear hears where this is, and goes on from its start. */
  function arrive(page, goesBack) {
    page.root.dataset.ready = "yes";
    if (goesBack) window.scrollTo(0, places.get(goesBack) || 0);
    if (isFirst) isFirst = false;
    else if (document.activeElement === document.body) {
      Headway.dom.announce(document.title);
      document.getElementById("main").focus({ preventScroll: true });
    }
  }

  function fail(page, problem) {
    if (problem.status === 401) return fill(page.root, signIn(Boolean(Headway.store.token())));
    if (problem.unanswered) {
      const timer = setTimeout(open, AGAIN_MS);
      leave = () => clearTimeout(timer);
    }
    return fill(page.root, Headway.parts.message(problem.message, "bad"), h("button", { type: "button", onclick: open }, "Try again"));
  }

  function signIn(wasWrong) {
    const wrong = wasWrong ? Headway.parts.message("This is not its token; each start of headway dash has a new one.", "bad") : null;
    const input = h("input", { type: "password", "aria-label": "Token", autocomplete: "off" });
    const form = h("form.sign-in", { onsubmit: async (event) => {
      event.preventDefault();
      Headway.store.keepToken(input.value.trim());
      await begin();
    } }, h("p", null, "This server asks for the token that headway dash printed."), wrong, input, h("button.primary", null, "Go on"));
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

  /**
   * Asks a server that answers again whether it is still the same. Resolves to whether the page was opened anew: another
   * start of headway dash has another token and may show another folder.
   */
  async function comeBack() {
    const before = Headway.about || {};
    try {
      const about = await Headway.api.get("api/about");
      if (about.started === before.started) return false;
      if (about.version !== before.version) return location.reload(), true;
      if (before.started) Headway.store.keepToken("");
      Headway.about = about;
      drawTop();
    } catch (problem) {
      if (problem.status !== 401) return false;
    }
    open();
    return true;
  }

  const token = Headway.address.takeToken();
  if (token) Headway.store.keepToken(token);
  window.addEventListener("hashchange", () => {
    const fresh = Headway.address.takeToken();
    if (!fresh) return open();
    Headway.store.keepToken(fresh);
    return begin();
  });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  });
  window.navigation?.addEventListener("navigate", (event) => {
    if (event.navigationType === "replace") return; // the same page, of which the address tells more
    places.set(location.hash, window.scrollY);
    traverses = event.navigationType === "traverse";
  });
  Headway.reopen = open;
  Headway.comeBack = comeBack;
  Headway.keys.start();
  drawTop();
  begin();
})((window.Headway = window.Headway || {}));
