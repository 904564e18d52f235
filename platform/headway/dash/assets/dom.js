/* Elements from data. What comes from a run only ever becomes text: nothing here reads HTML. */
"use strict";
(function (Headway) {
  const SVG = "http://www.w3.org/2000/svg";

  function set(element, name, value) {
    if (value === null || value === undefined || value === false) return;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.setAttribute("class", value);
    else if (name === "style") Object.entries(value).forEach(([key, part]) => element.style.setProperty(key, part));
    else if (name === "value" || name === "checked" || name === "indeterminate") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }

  function add(element, child) {
    if (child === null || child === undefined || child === false) return;
    if (Array.isArray(child)) child.forEach((one) => add(element, one));
    else element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }

  /**
   * Returns a new element.
   * @param {string} name the tag, with classes after dots: "div.card.wide".
   * @param {Object} [attributes] `on<event>` listens; null and false are left out.
   * @param {...(Node|string|number|null|Array)} children whatever is no node becomes text.
   */
  function h(name, attributes, ...children) {
    const [tag, ...classes] = name.split(".");
    const element = document.createElement(tag);
    if (classes.length) element.className = classes.join(" ");
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key === "class") value && element.classList.add(...value.split(" ").filter(Boolean));
      else set(element, key, value);
    }
    add(element, children);
    return element;
  }

  /** Returns a new SVG element; arguments as for `h`. */
  function svg(tag, attributes, ...children) {
    const element = document.createElementNS(SVG, tag);
    Object.entries(attributes || {}).forEach(([key, value]) => set(element, key, value));
    add(element, children);
    return element;
  }

  /** Puts these children in the place of all that an element holds; returns the element. */
  function fill(element, ...children) {
    element.replaceChildren();
    add(element, children);
    return element;
  }

  /**
   * As `fill`, for what is drawn anew under a reader's hands: the focus, the cursor in a field, what was scrolled and
   * what was opened stay as they were.
   */
  function refill(element, ...children) {
    const focus = element.contains(document.activeElement) ? document.activeElement : null;
    const place = focus && [...element.querySelectorAll(focus.tagName)].indexOf(focus);
    const tops = [...element.querySelectorAll(".scrolls")].map((one) => one.scrollTop);
    const opened = [...element.querySelectorAll("details")].map((one) => one.open);
    fill(element, ...children);
    element.querySelectorAll("details").forEach((one, at) => (one.open = opened[at] ?? one.open));
    element.querySelectorAll(".scrolls").forEach((one, at) => (one.scrollTop = tops[at] || 0));
    if (focus) giveFocus([...element.querySelectorAll(focus.tagName)], place, focus);
    return element;
  }

  function giveFocus(alike, place, before) {
    const able = (one) => one && !one.disabled;
    const now = able(alike[place]) ? alike[place] : alike.find(able);
    if (!now) return;
    now.focus({ preventScroll: true });
    if (now.type === "search") now.setSelectionRange(before.selectionStart, before.selectionEnd);
  }

  /** Says something to a screen reader. */
  function announce(text) {
    document.getElementById("announce").textContent = text;
  }

  /** Returns a function that runs `work` once calls have ceased for `wait_ms`. */
  function debounce(work, wait_ms) {
    let timer = 0;
    return (...given) => {
      clearTimeout(timer);
      timer = setTimeout(() => work(...given), wait_ms);
    };
  }

  /**
   * Returns a function that runs `work` soon: once for all calls within `wait_ms`, and not before it has ended its last.
   * For what the server tells: a run that writes rows without a pause would put a debounced answer off for ever.
   * @param {Object} page the open page; nothing runs once it is left.
   */
  function throttle(page, work, wait_ms) {
    let timer = 0;
    let busy = false;
    let asked = false;
    page.onLeave(() => clearTimeout(timer));
    async function run() {
      timer = 0;
      busy = true;
      asked = false;
      try {
        await work();
      } finally {
        busy = false;
        if (asked && !page.signal.aborted) timer = setTimeout(run, wait_ms);
      }
    }
    return () => {
      asked = true;
      if (!timer && !busy && !page.signal.aborted) timer = setTimeout(run, wait_ms);
    };
  }

  Headway.dom = { h, svg, fill, refill, announce, debounce, throttle };
})((window.Headway = window.Headway || {}));
