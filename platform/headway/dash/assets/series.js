/* Series of runs: charts that ask in the same moment share one request. */
"use strict";
(function (Headway) {
  const POINTS = 1000;
  const MOST_NAMES = 100; // more are asked for apart
  const waiting = new Map();

  function ask(run, params, signal) {
    const name = JSON.stringify([run, params.x, params.from, params.to]);
    if (!waiting.has(name) || waiting.get(name).names.size >= MOST_NAMES) {
      const batch = { names: new Set(), answer: null };
      waiting.set(name, batch);
      batch.answer = new Promise((done) => setTimeout(done)).then(() => {
        if (waiting.get(name) === batch) waiting.delete(name);
        return request(run, { ...params, names: [...batch.names].sort().join(",") }, signal);
      });
    }
    return waiting.get(name);
  }

  function request(run, params, signal) {
    const path = "api/run/" + run + "/series";
    if (Headway.api.exported) {
      return Headway.api.get(path, { x: params.x, points: POINTS }).catch(() => {
        throw new Error(`x: ${params.x}, but ${run} has none in this export; use step`);
      });
    }
    return Headway.api.get(path, { ...params, points: POINTS }, signal);
  }

  /**
   * Returns {name, x, y, min, max, rows, last_step} of a run's metric, or null if the run has none.
   * @param {string} run its id.
   * @param {string} name the metric's.
   * @param {Object} params x: "step", "time" or "tokens"; from, to: the range, empty for all.
   */
  async function get(run, name, params, signal) {
    const batch = ask(run, params, signal);
    batch.names.add(name);
    const answer = await batch.answer;
    return answer.series.find((one) => one.name === name) || null;
  }

  /** Returns values smoothed by an exponential mean that starts unbiased; what is no number stays so. */
  function smooth(values, weight) {
    if (!weight) return values;
    let mean = 0;
    let share = 0;
    return values.map((value) => {
      if (value === null || !Number.isFinite(value)) return null;
      mean = weight * mean + (1 - weight) * value;
      share = weight * share + (1 - weight);
      return mean / share;
    });
  }

  /** Returns the least and the greatest number, and the last. */
  function extent(values) {
    let [least, most, last] = [Infinity, -Infinity, null];
    for (const value of values) {
      if (value === null || !Number.isFinite(value)) continue;
      least = Math.min(least, value);
      most = Math.max(most, value);
      last = value;
    }
    return last === null ? null : { least, most, last };
  }

  Headway.series = { get, smooth, extent };
})((window.Headway = window.Headway || {}));
