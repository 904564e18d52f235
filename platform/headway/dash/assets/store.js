/* What the browser remembers: the token for as long as the tab lives, choices of the reader for longer. */
"use strict";
(function (Headway) {
  function guarded(work, otherwise) {
    try {
      return work();
    } catch {
      return otherwise; // storage is off in this browser: choices last until the page is left
    }
  }

  /** Returns a choice made earlier, or `otherwise`. */
  function read(name, otherwise) {
    const text = guarded(() => localStorage.getItem("headway." + name), null);
    return text === null ? otherwise : guarded(() => JSON.parse(text), otherwise);
  }

  /** Remembers a choice. */
  function write(name, value) {
    guarded(() => localStorage.setItem("headway." + name, JSON.stringify(value)));
  }

  let held = null;

  /** Returns the token of this session, or null. */
  function token() {
    return held || guarded(() => sessionStorage.getItem("headway.token"), null);
  }

  /** Keeps the token while this tab lives. */
  function keepToken(text) {
    held = text;
    guarded(() => sessionStorage.setItem("headway.token", text));
  }

  Headway.store = { read, write, token, keepToken };
})((window.Headway = window.Headway || {}));
