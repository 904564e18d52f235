/* Small parts that several pages show: a state, a tab row, a switch, a message, a dialog. */
"use strict";
(function (Headway) {
  const { h, svg, fill, announce } = Headway.dom;

  // One shape a state, so that colour alone says nothing.
  const SHAPES = {
    created: "M6 1.8a4.2 4.2 0 1 0 0 8.4a4.2 4.2 0 1 0 0-8.4",
    pending: "M6 1.8a4.2 4.2 0 1 0 0 8.4a4.2 4.2 0 1 0 0-8.4M6 3.6V6l1.8 1.2",
    running: "M3 1.8l7 4.2l-7 4.2z",
    done: "M1.8 6.4l2.9 2.9l5.6-6.4",
    failed: "M2.4 2.4l7.2 7.2M9.6 2.4l-7.2 7.2",
    died: "M6 1.4L11 10.4H1zM6 4.6v2.6M6 8.9v.2",
    stopped: "M2.4 2.4h7.2v7.2H2.4z",
    paused: "M3.6 2v8M8.4 2v8",
    cancelled: "M6 1.8a4.2 4.2 0 1 0 0 8.4a4.2 4.2 0 1 0 0-8.4M3.2 8.8l5.6-5.6",
    preempted: "M3.6 2v8M8.4 2v8",
    requeued: "M10 6a4 4 0 1 1-1.4-3M8.8 .8v2.4h-2.4",
    lost: "M3.8 4.2a2.2 2.2 0 1 1 3.2 2c-.7.4-1 .8-1 1.5M6 10v.2",
    unreadable: "M3.8 4.2a2.2 2.2 0 1 1 3.2 2c-.7.4-1 .8-1 1.5M6 10v.2",
  };

  /** Returns a state as a shape and its word; `reason` is what a pointer that rests on it reads. */
  function state(name, reason) {
    const shape = svg("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }, svg("path", { d: SHAPES[name] || SHAPES.lost }));
    return h("span.state", { class: "is-" + name, title: reason || null }, shape, name);
  }

  /** Returns how far something is, as a bar and in numbers. */
  function progress(step, total) {
    const { number } = Headway.format;
    if (step === null || step === undefined) return Headway.format.NOTHING;
    const words = total ? number(step) + " / " + number(total) : number(step);
    if (!total) return words;
    const share = Math.max(0, Math.min(1, step / total));
    const bar = h("span.bar", { "aria-hidden": "true" }, h("span.bar-part", { style: { width: share * 100 + "%" } }));
    return h("span.progress", null, bar, h("span.words", null, words));
  }

  /** Returns a message in the place of what cannot be shown. */
  function message(text, kind) {
    return h("p.message", { class: kind || "", role: kind === "bad" ? "alert" : null }, text);
  }

  /** Returns a row of links to the tabs of a page; tabs is [{key, label, count}]. */
  function tabs(list, open, linkOf, label) {
    const entry = (tab) =>
      h("a", { href: linkOf(tab.key), "aria-current": tab.key === open ? "page" : null },
        tab.label, tab.count ? h("span.count", null, tab.count) : null);
    return h("nav.tabs", { "aria-label": label }, list.map(entry));
  }

  /** Returns a choice of one among few; `options` is [[value, label]]. */
  function choice(label, options, value, onChange) {
    const buttons = options.map(([key, text]) =>
      h("button", { type: "button", "aria-pressed": key === value ? "true" : "false", onclick: () => pick(key) }, text));
    function pick(key) {
      buttons.forEach((button, at) => button.setAttribute("aria-pressed", options[at][0] === key ? "true" : "false"));
      onChange(key);
    }
    return h("div.choice", { role: "group", "aria-label": label }, buttons);
  }

  /** Returns a labelled drop-down list; `options` is [[value, label]]. */
  function select(label, options, value, onChange) {
    const list = h("select", { onchange: () => onChange(list.value) },
      options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));
    return h("label.field", null, h("span", null, label), list);
  }

  /** Returns a labelled check box. */
  function check(label, value, onChange) {
    const box = h("input", { type: "checkbox", checked: Boolean(value), onchange: () => onChange(box.checked) });
    return h("label.check", null, box, label);
  }

  /** Returns a button that copies what `text()` gives. */
  function copyButton(label, text) {
    const button = h("button.quiet", { type: "button", onclick: copy }, label);
    async function copy() {
      await copyText(text());
      button.textContent = "Copied";
      announce("copied");
      setTimeout(() => (button.textContent = label), 1500);
    }
    return button;
  }

  async function copyText(text) {
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    const area = h("textarea.unseen", { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy"); // the only way on plain http and from disk
    area.remove();
  }

  /** Returns names and values as a list; pairs is [[name, value]]. */
  function facts(pairs) {
    const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
    return h("dl.facts", null, shown.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
  }

  /** Returns a section with a heading. */
  function section(title, ...children) {
    return h("section.part", null, h("h2", null, title), children);
  }

  /**
   * Opens a dialog.
   * @param {string} title its heading.
   * @param {Array} children what it holds.
   * @param {Function} [onClose] called once when it is gone.
   * @returns {HTMLDialogElement} to be closed by `close()`.
   */
  function dialog(title, children, onClose) {
    const close = h("button.quiet", { type: "button", "aria-label": "Close", onclick: () => box.close() }, "Close");
    const box = h("dialog", { "aria-label": title }, h("div.dialog-head", null, h("h2", null, title), close), children);
    box.addEventListener("close", () => {
      box.remove();
      if (onClose) onClose();
    });
    box.addEventListener("click", (event) => event.target === box && box.close());
    document.body.append(box);
    box.showModal();
    return box;
  }

  /** Asks before something is done; `what` names what will happen. Resolves to whether to go on. */
  function confirm(title, what, doIt) {
    return new Promise((answer) => {
      let yes = false;
      const go = h("button.danger", { type: "button", onclick: () => ((yes = true), box.close()) }, doIt);
      const leave = h("button", { type: "button", onclick: () => box.close() }, "Leave it");
      const box = dialog(title, [h("p", null, what), h("div.buttons", null, leave, go)], () => answer(yes));
      leave.focus();
    });
  }

  Headway.parts = { state, progress, message, tabs, choice, select, check, copyButton, facts, section, dialog, confirm, fill };
})((window.Headway = window.Headway || {}));
