/* The page's address: `#/run/ID?tab=charts`. All that a view shows is in it, so that a link can be sent. */
"use strict";
(function (Headway) {
  /** Returns {page, id, params} of a fragment; params is an object of strings. */
  function parse(fragment) {
    const text = fragment.replace(/^#\/?/, "");
    const cut = text.indexOf("?");
    const path = (cut < 0 ? text : text.slice(0, cut)).split("/").map(decode);
    const params = {};
    new URLSearchParams(cut < 0 ? "" : text.slice(cut + 1)).forEach((value, name) => (params[name] = value));
    return { page: path[0] || "runs", id: path.slice(1).join("/"), params };
  }

  function decode(part) {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  }

  /** Returns the fragment of a page; empty parameters are left out. */
  function link(page, id, params) {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(params || {})) {
      if (value !== "" && value !== null && value !== undefined && value !== false) query.set(name, value);
    }
    const tail = query.toString().replace(/%2C/g, ",").replace(/%2F/g, "/").replace(/%3A/g, ":");
    return "#/" + page + (id ? "/" + encodeURIComponent(id) : "") + (tail ? "?" + tail : "");
  }

  /** Returns the address that is open. */
  function now() {
    return parse(location.hash);
  }

  /** Changes parameters of the open page in place: no new entry in the history, no new page. */
  function change(params) {
    const { page, id, params: old } = now();
    history.replaceState(null, "", link(page, id, { ...old, ...params }));
  }

  /** Takes `token=` out of the fragment and returns it, or null. */
  function takeToken() {
    const found = location.hash.match(/[#&?]token=([^&]*)/);
    if (!found) return null;
    const rest = location.hash.replace(/[#&?]token=[^&]*/, "").replace(/^#?&/, "#");
    history.replaceState(null, "", location.pathname + location.search + (rest.startsWith("#/") ? rest : "#/runs"));
    return decode(found[1]);
  }

  Headway.address = { parse, link, now, change, takeToken };
})((window.Headway = window.Headway || {}));
