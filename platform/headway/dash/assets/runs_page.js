/* All runs: filtered, sorted, grouped and paged by the server, kept up to date while it is looked at. */
"use strict";
(function (Headway) {
  const { h, fill, refill, debounce, announce, throttle } = Headway.dom;
  const { count, number } = Headway.format;
  const { runsColumns, parts } = Headway;
  const SIZE = 50;
  const STATES = ["running", "done", "failed", "stopped"];
  const chosen = new Set(); // outlives the page: one may look at a run and come back

  /** A reader's own columns are for an address that asks for nothing: a link that was sent shows what its sender saw. */
  function readState(params) {
    const own = Object.keys(params).length ? runsColumns.SHOWN : Headway.store.read("columns", runsColumns.SHOWN);
    return {
      q: params.q || "", sort: params.sort || "-started", group: params.group || "", page: Math.max(0, Math.floor(Number(params.page) || 0)),
      columns: params.columns ? params.columns.split(",") : own,
    };
  }

  function writeState(state) {
    Headway.address.change({
      q: state.q, sort: state.sort === "-started" ? "" : state.sort, group: state.group, page: state.page || "",
      columns: state.columns.join() === runsColumns.SHOWN.join() ? "" : state.columns.join(","),
    });
  }

  async function answer(state, signal) {
    const { q, sort, group, page, columns } = state;
    if (Headway.api.exported) return Headway.query.answer(await Headway.api.get("api/runs", { all: 1 }), { ...state, size: SIZE });
    const asked = { q, sort, group, page, size: SIZE, columns: runsColumns.extra(columns).join(",") };
    return Headway.api.get("api/runs", asked, signal);
  }

  function groupWord(column, key) {
    return column + "=" + (/\s/.test(key) ? '"' + key + '"' : key);
  }

  function groupHeading(state, groups, pickGroup) {
    const byKey = new Map((groups || []).map((group) => [Headway.query.groupName(group.key), group]));
    return (row) => {
      const key = Headway.query.groupKey(row, state.group);
      const group = byKey.get(key) || {};
      const label = key === "" ? "none" : h("button.quiet", { type: "button", title: "Show only these", onclick: () => pickGroup(key) }, key);
      const best = group.best === null || group.best === undefined ? null : h("span.note", null, "best " + number(group.best));
      return { key, content: [label, group.count ? h("span.count", null, group.count) : null, best] };
    };
  }

  function quickStates(state, setFilter) {
    const has = (name) => state.q.split(/\s+/).includes("state=" + name);
    const flip = (name) => {
      const rest = state.q.split(/\s+/).filter((word) => word && !word.startsWith("state="));
      setFilter([...rest, ...(has(name) ? [] : ["state=" + name])].join(" "));
    };
    return h("div.choice", { role: "group", "aria-label": "State" }, STATES.map((name) =>
      h("button", { type: "button", "aria-pressed": String(has(name)), onclick: () => flip(name) }, parts.state(name))));
  }

  function pager(result, go) {
    const last = Math.max(0, Math.ceil(result.matched / result.size) - 1);
    if (last === 0) return null;
    const step = (label, page, off) => h("button", { type: "button", disabled: off, onclick: () => go(page) }, label);
    const from = result.page * result.size;
    return h("nav.pager", { "aria-label": "Pages of the table" },
      step("First", 0, result.page === 0), step("Previous", result.page - 1, result.page === 0),
      h("span", null, `${number(from + 1)} to ${number(Math.min(result.matched, from + result.size))} of ${number(result.matched)}`),
      step("Next", result.page + 1, result.page >= last), step("Last", last, result.page >= last));
  }

  function choiceColumn(onChange) {
    const box = (row) => h("input", { type: "checkbox", checked: chosen.has(row.id), "aria-label": "Choose " + row.id, onchange: (event) => {
      if (event.target.checked) chosen.add(row.id);
      else chosen.delete(row.id);
      onChange();
    } });
    return { key: "choice", label: "Choose", fixed: true, class: "choose", cell: box };
  }

  function groupOptions(state, known) {
    const own = ["recipe", "strategy", "state", "where", "sweep", "tags"].map((key) => [key, key]);
    const others = [...new Set([...runsColumns.extra(state.columns), ...(state.group ? [state.group] : [])])];
    const extra = others.filter((key) => !own.some(([one]) => one === key));
    return [["", "nothing"], ...own, ...extra.map((key) => [key, key])].filter(([key]) => key === "" || known.length >= 0);
  }

  /** What lies in the folder and is no run is said, not hidden. */
  function foreignNote(names) {
    if (!names.length) return null;
    const few = names.slice(0, 5).map((one) => (typeof one === "string" ? one : one.name || one.id)).join(", ");
    return h("p.note", null, `Not shown, since not a run: ${few}${names.length > 5 ? ` and ${names.length - 5} more` : ""}`);
  }

  /** Shows the page of all runs. */
  function show(page) {
    const state = readState(page.params);
    let result = { rows: [], matched: 0, total: 0, columns: [], page: 0, size: SIZE };
    let turn = 0;
    const box = h("div.runs-box");
    const summary = h("p.note", { role: "status" });
    const pages = h("div");
    const quick = h("span");
    const groups = h("span");
    const bar = h("div.chosen-bar", { hidden: true });
    const problem = h("div");
    const foreign = h("div.foreign");
    let table = null;

    const filter = h("input", { type: "search", value: state.q, placeholder: "Filter: words, state=failed, optim.lr>0.01", "aria-label": "Filter runs",
      autocomplete: "off", spellcheck: "false", oninput: debounce(() => set({ q: filter.value, page: 0 }), 180) });
    const columns = h("button", { type: "button", onclick: () => runsColumns.chooser(result.columns, state.columns, setColumns) }, "Columns");

    function set(changes) {
      Object.assign(state, changes);
      writeState(state);
      drawControls();
      return load();
    }

    function setFilter(q) {
      filter.value = q;
      set({ q, page: 0 });
    }

    function setColumns(keys) {
      state.columns = ["id", ...keys.filter((key) => key !== "id")];
      Headway.store.write("columns", state.columns);
      makeTable();
      set({});
    }

    function makeTable() {
      table = Headway.table.make({
        columns: [choiceColumn(drawChosen), ...runsColumns.of(state.columns)], caption: "Runs", keyOf: (row) => row.id,
        sort: state.sort, onSort: (sort) => set({ sort, page: 0 }),
      });
      fill(box, table.element);
    }

    function drawControls() {
      refill(quick, quickStates(state, setFilter));
      refill(groups, parts.select("Group", groupOptions(state, result.columns), state.group, (group) => set({ group, page: 0 })));
    }

    function drawChosen() {
      bar.hidden = chosen.size === 0;
      const go = h("button.primary", { type: "button", id: "compare-chosen", onclick: () => (location.hash = Headway.address.link("compare", "", { runs: [...chosen].join(",") })) }, "Compare");
      const none = h("button.quiet", { type: "button", onclick: () => (chosen.clear(), drawChosen(), draw()) }, "Choose none");
      fill(bar, h("span", null, count(chosen.size, "run") + " chosen"), go, none);
    }

    function draw() {
      table.show(result.rows, state.group ? groupHeading(state, result.groups, (key) => {
        const word = groupWord(state.group, key);
        state.group = "";
        setFilter((state.q + " " + word).trim());
      }) : null);
      summary.textContent = result.matched === result.total ? count(result.total, "run") : `${number(result.matched)} of ${count(result.total, "run")}`;
      refill(pages, pager(result, (to) => set({ page: to }).then(() => box.scrollIntoView({ block: "nearest" }))));
      fill(problem, result.problem ? parts.message(result.problem, "bad") : null, result.rows.length ? null : emptyMessage());
      fill(foreign, foreignNote(result.foreign || []));
    }

    function emptyMessage() {
      if (result.total) return parts.message("No run fits this filter.");
      return parts.message("No runs here yet. `headway fit RECIPE` makes one; it appears here by itself.");
    }

    async function load() {
      const mine = (turn += 1);
      try {
        const found = await answer(state, page.signal);
        if (mine !== turn || page.signal.aborted) return;
        const last = Math.max(0, Math.ceil(found.matched / SIZE) - 1);
        if (state.page > last) return void (await set({ page: last })); // fewer runs than when the link was sent
        result = found;
        draw();
        box.dataset.loaded = String(mine);
      } catch (error) {
        if (page.signal.aborted || mine !== turn) return;
        if (error.status === 401) {
          if (!box.dataset.loaded) throw error;
          return void Headway.comeBack(); // another start of headway dash has another token
        }
        fill(problem, parts.message(error.message, "bad"));
        announce(error.message);
      }
    }

    const reload = throttle(page, load, 1500);

    function change({ changed, gone }) {
      const byId = new Map(changed.map((row) => [row.id, row]));
      result.rows = result.rows.map((row) => {
        const fresh = byId.get(row.id);
        return fresh ? { ...row, ...fresh, values: { ...row.values, ...fresh.values } } : row;
      });
      gone.forEach((id) => chosen.delete(id));
      draw();
      reload();
    }

    fill(page.root, h("div.page-head", null, h("h1", null, "Runs"), summary),
      h("div.toolbar", null, filter, quick, groups, columns), problem, box, pages, foreign, bar);
    makeTable();
    writeState(state);
    drawControls();
    drawChosen();
    page.onLeave(Headway.live.watch({ table: true }, { table: change, back: load }));
    return load();
  }

  Headway.pages = { ...Headway.pages, runs: show };
})((window.Headway = window.Headway || {}));
