/* What changes while the page is open, as server-sent events. */
"use strict";
(function (Headway) {
  let watched = 0;

  function mark(state) {
    document.documentElement.dataset.live = state;
    const badge = document.getElementById("live");
    if (badge) badge.textContent = { on: "live", off: "not connected", none: "" }[state];
  }

  /**
   * Listens until the returned function is called.
   * @param {Object} what `runs`: ids whose rows are wanted; `table`: whether changed rows of the table are.
   * @param {Object} handlers `rows({run, series})`, `table({changed, gone})`, `reset({run})`: its rows were replaced.
   */
  function watch(what, handlers) {
    if (Headway.api.exported) return () => {};
    const params = { runs: (what.runs || []).join(","), table: what.table ? 1 : "" };
    const source = new EventSource(Headway.api.address("api/events", params));
    watched += 1;
    source.onopen = () => mark("on");
    source.onerror = () => mark("off");
    for (const name of ["rows", "table", "reset"]) {
      if (handlers[name]) source.addEventListener(name, (event) => handlers[name](JSON.parse(event.data)));
    }
    return () => {
      source.close();
      watched -= 1;
      if (watched === 0) mark("none");
    };
  }

  Headway.live = { watch };
})((window.Headway = window.Headway || {}));
