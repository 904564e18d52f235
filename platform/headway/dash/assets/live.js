/*
 * What changes while the page is open, as server-sent events. A tab that nobody sees does not listen: a browser keeps
 * six connections to a server for all its tabs together, and a seventh that listened would never be answered.
 */
"use strict";
(function (Headway) {
  const AGAIN_MS = 3000;
  const SAID_AFTER_MS = 1500; // a server that is started anew is not made much of
  let watched = 0;
  let saying = 0;

  function mark(state) {
    const root = document.documentElement;
    const before = root.dataset.live;
    root.dataset.live = state;
    const badge = document.getElementById("live");
    if (badge) badge.textContent = { on: "live", off: "not connected", none: "" }[state];
    if (state === before) return;
    clearTimeout(saying);
    const lost = document.getElementById("lost");
    lost.hidden = true;
    if (state === "off") saying = setTimeout(() => say(lost, Date.now() / 1000), SAID_AFTER_MS);
  }

  function say(lost, since) {
    const time = Headway.format.stamp(since).slice(11);
    lost.textContent = `The server does not answer: this is how things stood at ${time}. Once \`headway dash\` runs again, the page goes on by itself.`;
    lost.hidden = false;
  }

  /**
   * Listens until the returned function is called.
   * @param {Object} what `runs`: ids whose rows are wanted; `table`: whether changed rows of the table are.
   * @param {Object} handlers `rows({run, series})`, `table({changed, gone, sweeps})`, `reset({run})`: its rows were
   *   replaced; `back()`: nothing was heard for a while, so what is shown has to be asked for again.
   */
  function watch(what, handlers) {
    if (Headway.api.exported) return () => {};
    const params = { runs: (what.runs || []).join(","), table: what.table ? 1 : "" };
    let source = null;
    let timer = 0;
    let left = false;
    let missed = document.hidden;
    watched += 1;

    function listen() {
      if (source || left || document.hidden) return;
      source = new EventSource(Headway.api.address("api/events", params));
      source.onopen = heard;
      source.onerror = lost;
      for (const name of ["rows", "table", "reset"]) {
        if (handlers[name]) source.addEventListener(name, (event) => handlers[name](JSON.parse(event.data)));
      }
    }

    async function heard() {
      mark("on");
      if (!missed) return;
      missed = false;
      if (!(await Headway.comeBack()) && !left && handlers.back) handlers.back();
    }

    /** A browser tries again by itself, unless it was answered that it may not. */
    function lost() {
      missed = true;
      mark("off");
      if (source && source.readyState === EventSource.CLOSED) {
        hush();
        timer = setTimeout(async () => (await Headway.comeBack()) || listen(), AGAIN_MS);
      }
    }

    function hush() {
      clearTimeout(timer);
      if (source) source.close();
      source = null;
    }

    function looked() {
      if (!document.hidden) return listen();
      missed = true;
      hush();
    }

    document.addEventListener("visibilitychange", looked);
    listen();
    return () => {
      left = true;
      document.removeEventListener("visibilitychange", looked);
      hush();
      watched -= 1;
      if (watched === 0) mark("none");
    };
  }

  Headway.live = { watch };
})((window.Headway = window.Headway || {}));
