"use strict";

// The view of how the tests were run.
eventletReport.runs = (() => {
  const { element, seconds } = eventletReport.dom;

  const OPEN = 4;

  function time(ns) {
    return ns ? new Date(Number(BigInt(ns) / 1000000n)).toLocaleString() : "";
  }

  function length(run) {
    return run.started_ns && run.ended_ns
      ? seconds(Number(BigInt(run.ended_ns) - BigInt(run.started_ns)) / 1e9) : "";
  }

  function show(main, { runs, version }) {
    main.replaceChildren(element("div", { class: "page" },
      runs.toReversed().map((run, i) => element("section", { class: "card" }, folded(runs, run, i,
        element("dl", { class: "facts" }, facts(run).map(([name, value]) =>
          [element("dt", {}, name), element("dd", {}, value)])),
        run.upgrade.length > 0 && [
          element("h3", {}, "Compared with an earlier run"),
          element("pre", { class: "text", tabindex: "0" }, run.upgrade.join("\n")),
        ]))),
      element("p", { class: "dim" }, `Report of pytest-eventlet-debug ${version}`)));
  }

  // The newest run is open, and others as long as they are few.
  function folded(runs, run, i, ...content) {
    if (runs.length === 1) return [element("h2", {}, "Run"), content];
    return element("details", { open: i === 0 || runs.length <= OPEN },
      element("summary", {}, element("h2", {}, run.label), ` ${time(run.started_ns)}, ${run.hubs.join(", ")}`), content);
  }

  function facts(run) {
    const list = (values) => element("ul", {}, values.map((value) => element("li", {}, value)));
    const versions = Object.entries(run.versions).map(([name, version]) => `${name} ${version}`);
    return [
      ["Command", element("code", {}, ["pytest", ...run.command.map(quoted)].join(" "))],
      ["Exit status", run.exit_status == null ? "did not end" : String(run.exit_status)],
      ["Hubs", run.hubs.join(", ") || "as set"],
      ["Recorded with", run.tools.length ? list(run.tools) : "nothing"],
      ["Started", time(run.started_ns)],
      ["Took", length(run)],
      ["Directory", element("code", {}, run.directory)],
      ["Report", run.page && element("a", { href: run.page }, run.page)],
      ["Root", element("code", {}, run.rootdir)],
      ["Python", run.python],
      ["Machine", run.platform],
      ["Versions", list(versions)],
    ].filter(([, value]) => value);
  }

  function quoted(word) {
    return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
  }

  return { show, quoted };
})();
