/* What changes something: cancel, retry, delete, stop. Only with the token, and never without asking first. */
"use strict";
(function (Headway) {
  const { h, announce } = Headway.dom;

  /** Returns whether this reader may act. */
  function allowed() {
    const about = Headway.about || {};
    return !Headway.api.exported && about.actions !== false && !about.read_only && Boolean(Headway.store.token());
  }

  /**
   * Returns a button that acts after a confirmation; null where the reader may not.
   * @param {Object} action label: the button's; path: what is asked of the server; title and what: what will
   *   happen, in words; done(): called when the server has done it.
   */
  function button(action) {
    if (!allowed()) return null;
    const element = h("button", { type: "button", class: "act", onclick: act }, action.label);

    async function act() {
      if (!(await Headway.parts.confirm(action.title, action.what, action.label))) return;
      element.disabled = true;
      try {
        const answer = await Headway.api.post(action.path);
        announce(answer.result || "done");
        if (action.done) action.done();
      } catch (problem) {
        Headway.parts.dialog(action.title, [Headway.parts.message(problem.message, "bad")]);
      }
      element.disabled = false;
    }

    return element;
  }

  Headway.actions = { allowed, button };
})((window.Headway = window.Headway || {}));
