/* Numbers, times and sizes as people read them. */
"use strict";
(function (Headway) {
  const NOTHING = "–";
  const UNITS = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

  /** Returns a number in four significant digits, as few characters as that takes. */
  function number(value) {
    if (value === null || value === undefined || value === "") return NOTHING;
    if (typeof value !== "number") return String(value);
    if (!Number.isFinite(value)) return String(value);
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (Number.isInteger(value) && size < 1e7) return value.toLocaleString("en-US");
    if (size >= 1e4 && size < 1e7) return Math.round(value).toLocaleString("en-US");
    if (size >= 1e6 || size < 1e-3) return Number(value.toPrecision(3)).toExponential().replace("e+", "e");
    return String(Number(value.toPrecision(4)));
  }

  /** Returns a large count in three digits and a letter: 1.25M. */
  function short(value) {
    if (value === null || value === undefined || !Number.isFinite(value)) return NOTHING;
    const size = Math.abs(value);
    const unit = UNITS.find(([least]) => size >= least);
    return unit ? Number((value / unit[0]).toPrecision(3)) + unit[1] : number(value);
  }

  /** Returns a round number of an axis with all its digits: 559.5M. */
  function tick(value) {
    const size = Math.abs(value);
    if (size === 0) return "0";
    const unit = UNITS.find(([least]) => size >= least);
    if (unit) return Number((value / unit[0]).toPrecision(7)) + unit[1];
    return size < 1e-3 ? Number(value.toPrecision(4)).toExponential().replace("e+", "e") : String(Number(value.toPrecision(7)));
  }

  /** Returns a size in bytes with its unit. */
  function bytes(value) {
    if (value === null || value === undefined) return NOTHING;
    const units = ["B", "kB", "MB", "GB", "TB"];
    let unit = 0;
    while (Math.abs(value) >= 1000 && unit < units.length - 1) {
      value /= 1000;
      unit += 1;
    }
    return Number(value.toPrecision(3)) + " " + units[unit];
  }

  /** Returns seconds as 4.2 s, 3:05 or 2 d 3 h. */
  function duration(seconds) {
    if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return NOTHING;
    if (seconds > 0 && seconds < 1e-3) return Number((seconds * 1e6).toPrecision(3)) + " µs";
    if (seconds > 0 && seconds < 1) return Number((seconds * 1e3).toPrecision(3)) + " ms";
    if (seconds < 60) return Number(seconds.toPrecision(seconds < 10 ? 2 : 3)) + " s";
    const whole = Math.round(seconds);
    const two = (part) => String(part).padStart(2, "0");
    if (whole < 3600) return Math.floor(whole / 60) + ":" + two(whole % 60);
    if (whole < 86400) return Math.floor(whole / 3600) + ":" + two(Math.floor(whole / 60) % 60) + ":" + two(whole % 60);
    return Math.floor(whole / 86400) + " d " + (Math.floor(whole / 3600) % 24) + " h";
  }

  /** Returns how long ago a time (seconds since 1970) was. */
  function ago(time) {
    if (!time) return NOTHING;
    const seconds = Date.now() / 1000 - time;
    if (seconds < 5) return "now";
    if (seconds < 60) return Math.round(seconds) + " s ago";
    if (seconds < 3600) return Math.round(seconds / 60) + " min ago";
    if (seconds < 86400) return Math.round(seconds / 3600) + " h ago";
    if (seconds < 86400 * 30) return Math.round(seconds / 86400) + " d ago";
    return date(time);
  }

  /** Returns the day of a time (seconds since 1970). */
  function date(time) {
    return time ? stamp(time).slice(0, 10) : NOTHING;
  }

  /** Returns a time (seconds since 1970) as 2026-03-01 14:05:09, where the reader is. */
  function stamp(time) {
    if (!time) return NOTHING;
    const at = new Date(time * 1000);
    const two = (part) => String(part).padStart(2, "0");
    const day = [at.getFullYear(), two(at.getMonth() + 1), two(at.getDate())].join("-");
    return day + " " + [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(":");
  }

  /** Returns any value of a recipe, a table or a manifest as one line. */
  function value(anything) {
    if (anything === null || anything === undefined) return NOTHING;
    if (typeof anything === "number") return number(anything);
    if (typeof anything === "object") return JSON.stringify(anything);
    return String(anything);
  }

  /** Returns what a name has, a number with all its digits; a time since 1970 as a date, where the name says that it is one. */
  function named(name, inner) {
    const isTime = typeof inner === "number" && inner > 1e9 && inner < 1e11;
    return isTime && /(^|[._])(time|at|updated|started|ended|start|end|created|written)$/.test(name) ? stamp(inner) : typeof inner === "number" ? String(inner) : value(inner);
  }

  /** Returns "1 run", "5 runs". */
  function count(many, noun) {
    return many.toLocaleString("en-US") + " " + noun + (many === 1 ? "" : "s");
  }

  Headway.format = { NOTHING, number, short, tick, bytes, duration, ago, date, stamp, value, named, count };
})((window.Headway = window.Headway || {}));
