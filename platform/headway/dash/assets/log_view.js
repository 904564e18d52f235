/* What a rank or a task printed, followed while it grows. */
"use strict";
(function (Headway) {
  const { h } = Headway.dom;
  const FIRST = -65536;
  const MOST = 2_000_000;
  // Colours and cursor movements of a terminal: escape [ ... letter.
  const ESCAPES = /\u001b\[[0-9;?]*[A-Za-z]/g;

  function tidy(text) {
    return text.replace(ESCAPES, "").replace(/\r\n/g, "\n").replace(/[^\n]*\r(?=[^\n])/g, "");
  }

  /**
   * Returns a log: {element, stop()}.
   * @param {Object} page the open page.
   * @param {string} path where it is answered.
   * @param {Object} params what names it (rank or task).
   * @param {boolean} follow whether it grows.
   */
  function make(page, path, params, follow) {
    const text = h("pre.log", { tabindex: "0", role: "region", "aria-label": "Log" });
    const state = h("span.note");
    const follows = Headway.parts.check("Follow", follow && !Headway.api.exported, (on) => on && read());
    const box = follows.querySelector("input");
    const whole = h("button.quiet", { type: "button", onclick: () => read(0) }, "From the start");
    const copy = Headway.parts.copyButton("Copy", () => text.textContent);
    let next = FIRST;
    let timer = 0;
    let stopped = false;
    page.onLeave(stop);

    function stop() {
      stopped = true;
      clearTimeout(timer);
    }

    async function read(from) {
      clearTimeout(timer);
      if (from !== undefined) {
        next = from;
        text.textContent = "";
      }
      const answer = await Headway.api.get(path, { ...params, from: next }, page.signal).catch((problem) => ({ problem }));
      if (stopped) return;
      if (answer.problem) state.textContent = answer.problem.message;
      else take(answer);
      const more = !answer.problem && answer.next < answer.size && next !== FIRST;
      if (more && text.textContent.length < MOST) timer = setTimeout(read, 0);
      else if (box.checked && !Headway.api.exported) timer = setTimeout(read, answer.problem ? 5000 : 1000);
    }

    function take(answer) {
      const atEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 30;
      if (answer.text) text.append(tidy(answer.text));
      next = answer.next;
      whole.hidden = Headway.api.exported || !(answer.truncated || answer.next - answer.text.length > 0);
      state.textContent = Headway.format.bytes(answer.size);
      if (!text.textContent) text.dataset.empty = "nothing printed yet";
      else delete text.dataset.empty;
      if (atEnd) text.scrollTop = text.scrollHeight;
    }

    read();
    const tools = [Headway.api.exported ? null : follows, state, whole, copy];
    return { element: h("div.log-box", null, h("div.toolbar", null, tools), text), stop };
  }

  Headway.logView = { make };
})((window.Headway = window.Headway || {}));
