/* Every launcher's jobs: where they are, why they wait, what they print; cancelled and sent again from here. */
"use strict";
(function (Headway) {
  const { h, fill } = Headway.dom;
  const { parts } = Headway;
  const { link } = Headway.address;
  const { number, NOTHING } = Headway.format;
  const EVERY_MS = 3000;
  const ENDED = ["done", "failed", "cancelled", "lost"];

  function keyOf(row) {
    return row.id + " " + (row.task ?? "");
  }

  function actions(row, after) {
    const cancel = ENDED.includes(row.state) ? null : Headway.actions.button({
      label: "Cancel", path: "api/job/" + row.id + "/cancel", title: "Cancel this job?",
      what: `${row.id} (${row.run || "no run yet"}) on ${row.profile || row.launcher} will be cancelled: what runs saves its position and ends.`, done: after });
    const retry = !ENDED.includes(row.state) || row.state === "done" ? null : Headway.actions.button({
      label: "Retry", path: "api/job/" + row.id + "/retry", title: "Send this job again?",
      what: `${row.id} (${row.run || "no run yet"}) will be sent to ${row.profile || row.launcher} again and goes on from its newest checkpoint.`, done: after });
    const logs = h("button.quiet", { type: "button", onclick: () => openLog(row) }, "Logs");
    return h("span.acts", null, logs, cancel, retry);
  }

  function columns(after) {
    return [
      { key: "id", label: "Job", rowHead: true, value: keyOf, cell: (row) => h("a.main-link.job-name", { href: link("jobs", "", { job: row.id, task: row.task ?? "" }), title: row.id, onclick: (event) => (event.preventDefault(), openLog(row)) },
        row.id) },
      { key: "state", label: "State", cell: (row) => parts.state(row.state, row.reason) },
      { key: "reason", label: "Reason", cell: (row) => h("span.reason", { title: row.reason || null }, row.reason || (row.exit_code ? "exit code " + row.exit_code : "")) },
      { key: "run", label: "Run", hide: "phone", cell: (row) => (row.run ? h("a", { href: link("run", row.run) }, row.run) : NOTHING) },
      { key: "launcher", label: "Launcher", hide: "phone", cell: launcher },
      { key: "where", label: "Where", hide: "narrow", class: "where", cell: Headway.runsColumns.where },
      { key: "since", label: "Since", numeric: true, hide: "narrow", cell: (row) => Headway.runsColumns.when(row.since) },
      { key: "progress", label: "Progress", numeric: true, hide: "phone", value: (row) => row.step, cell: (row) => (row.total_steps ? parts.progress(row.step, row.total_steps) : row.progress || NOTHING) },
      { key: "metric", label: "Metric", numeric: true, hide: "phone", cell: (row) => number(row.metric || null) },
      { key: "requeues", label: "Requeues", numeric: true, hide: "narrow", class: "requeues" },
      { key: "act", label: "What can be done", fixed: true, class: "stick", cell: (row) => actions(row, after) },
    ];
  }

  function launcher(row) {
    const profile = row.profile && row.profile !== row.launcher ? h("span.note", null, " " + row.profile) : null;
    return [row.launcher || NOTHING, profile];
  }

  function openLog(row) {
    const leave = [];
    const place = { signal: new AbortController().signal, onLeave: (work) => leave.push(work) };
    const task = row.task ?? 0;
    Headway.address.change({ job: row.id, task });
    const log = Headway.logView.make(place, "api/job/" + row.id + "/log", { task }, !ENDED.includes(row.state));
    const box = parts.dialog("Log of " + row.id, [log.element], () => {
      leave.forEach((work) => work());
      if (Headway.address.now().page === "jobs") Headway.address.change({ job: "", task: "" });
    });
    box.classList.add("wide");
  }

  function groupHeading(row) {
    return { key: row.group || "", content: [row.group || "single jobs"] };
  }

  /** Shows the page of jobs. */
  async function show(page) {
    let answer = { jobs: [], launchers: [] };
    let timer = 0;
    const summary = h("p.note", { role: "status" });
    const notes = h("div");
    const filter = h("input", { type: "search", placeholder: "Filter: words, state=pending, launcher=slurm", "aria-label": "Filter jobs", value: page.params.q || "", oninput: () => {
      Headway.address.change({ q: filter.value });
      draw();
    } });
    let grouped = page.params.group === "1";
    const groups = parts.check("By group", grouped, (on) => {
      grouped = on;
      Headway.address.change({ group: on ? 1 : "" });
      draw();
    });
    const table = Headway.table.make({ columns: columns(() => load()), caption: "Jobs", keyOf, sort: page.params.sort || "-since",
      sorted: (sort) => Headway.address.change({ sort: sort === "-since" ? "" : sort }) });

    function draw() {
      const rows = answer.jobs.map((row) => ({ recipe: row.run || "", tags: [row.group, row.launcher, row.profile, row.reason].filter(Boolean), ...row }));
      let shown = Headway.query.filter(rows, filter.value);
      if (grouped) shown = [...shown].sort((one, other) => Headway.table.compare(one.group, other.group));
      table.element.classList.toggle("none-requeued", !shown.some((row) => row.requeues));
      table.show(shown, grouped ? groupHeading : null);
      summary.textContent = shown.length === rows.length ? Headway.format.count(rows.length, "job") : `${shown.length} of ${Headway.format.count(rows.length, "job")}`;
      const silent = answer.launchers.filter((launcher) => launcher.error);
      fill(notes, silent.map((launcher) => parts.message(launcher.name + ": " + launcher.error, "bad")),
        answer.jobs.length ? null : parts.message("No jobs. `headway submit fit RECIPE --on PROFILE` sends one."));
    }

    async function load() {
      clearTimeout(timer);
      answer = await Headway.api.get("api/jobs", null, page.signal);
      if (page.signal.aborted) return;
      if (!table.element.contains(document.activeElement) || !document.querySelector("dialog[open]")) draw();
      if (!Headway.api.exported) timer = setTimeout(() => load().catch(later), EVERY_MS);
    }

    function later(problem) {
      if (page.signal.aborted) return;
      fill(notes, parts.message(problem.message, "bad"));
      timer = setTimeout(() => load().catch(later), EVERY_MS);
    }

    page.onLeave(() => clearTimeout(timer));
    const hint = Headway.api.exported || Headway.actions.allowed() ? null : h("p.note", null, "Open the page by the address that headway dash printed to cancel and retry jobs.");
    fill(page.root, h("div.page-head", null, h("h1", null, "Jobs"), summary), h("div.toolbar", null, filter, groups), hint, notes, table.element);
    await load();
    const asked = answer.jobs.find((row) => row.id === page.params.job && String(row.task ?? "0") === (page.params.task || "0"));
    if (asked) openLog(asked);
  }

  Headway.pages = { ...Headway.pages, jobs: show };
})((window.Headway = window.Headway || {}));
