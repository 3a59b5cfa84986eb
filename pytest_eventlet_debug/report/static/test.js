"use strict";

// The view of one test: what is wrong first, then its hubs side by side, then its recordings.
eventletReport.test = (() => {
  const { element, seconds, plural, outcome, absent, testName } = eventletReport.dom;
  const { history, matrix, runs } = eventletReport;

  // Has a page for each kind of finding. It is a link, and nothing is loaded from there.
  const FINDINGS = "https://pytest-eventlet-debug.readthedocs.io/en/latest/findings/";

  const OPENED_BY = [
    [/^(.*\/)?strace\.txt$/, "less"],
    [/\.txt\.gz$/, "zless"],
    [/\.(pcapng|pcap)(\.gz)?$/, "wireshark"],
    [/\.cprof$/, "python -m pstats"],
    [/\.callgrind$/, "kcachegrind"],
    [/\.(txt|json)$/, "less"],
  ];

  function show(main, run, id, parameters) {
    const row = matrix.judged(run).find((each) => each.id === id);
    if (!row) {
      main.replaceChildren(element("p", { class: "problem" }, `There is no test ${id} in this report. `,
        element("a", { href: "#/" }, "All tests")));
      return null;
    }
    const body = element("div", { class: "page" });
    main.replaceChildren(body);
    const view = { run, row, parameters, closers: [], gone: false };
    const { script, place } = row.test.details || {};
    const ready = script
      ? eventletReport.load(script).then((tests) => tests[place])
      : Promise.resolve([]);
    ready.then((details) => { if (!view.gone) fill(body, view, details); },
      (error) => body.replaceChildren(heading(row), element("p", { class: "problem" }, error.message)));
    window.scrollTo(0, 0);
    return () => { view.gone = true; view.closers.forEach((close) => close()); };
  }

  function heading(row) {
    return element("div", { class: "title" },
      element("p", {}, element("a", { href: matrix.back(), class: "back" }, "← All tests")),
      element("h2", {}, testName(row.id)));
  }

  function fill(body, view, details) {
    const { run, row } = view;
    const last = run.columns
      .map((column, i) => ({ i, label: column.label, cell: row.test.cells[i], detail: details[i] }))
      .filter(({ cell }) => cell || run.runs.length === 1);
    // Beside the last run the newest one that failed if that passed, and the other way round.
    const contrasts = (row.test.contrasts || []).map((cell, n) => {
      const i = run.columns.length + n;
      return { i, label: `${run.columns[cell.column].label} · ${run.runs[cell.run].label}`, cell, detail: details[i] };
    });
    const hubs = [...last, ...contrasts];
    for (const hub of hubs) hub.recordings = recordings(hub.detail);
    const cards = element("div", { class: "hubs" }, hubs.map((hub) => hubCard(hub)));
    body.replaceChildren(heading(row), verdict(run, row, last), ...history.card(run, row), ...findings(row, hubs), cards);
    eventletReport.tabs.add(body, view, hubs);
    showErrors(body);
  }

  // A long failure is a box that scrolls: show what the error says, not where its function begins.
  function showErrors(body) {
    for (const line of body.querySelectorAll("pre .error-line:first-of-type")) {
      const box = line.closest("pre");
      const below = line.offsetTop - box.offsetTop - box.clientHeight * 0.7;
      if (below > 0) box.scrollTop = below;
    }
  }

  // What was recorded of a test on a hub: its attempts, and blocks of them.
  function recordings(detail) {
    const attempts = detail ? detail.attempts : [];
    return attempts.flatMap((attempt) => attempt.parts.map((part) => ({
      attempt, part,
      label: [attempts.length > 1 && `attempt ${attempt.attempt}`, part.block].filter(Boolean).join(", ")
        || "whole test",
    })));
  }

  function verdict(run, row, hubs) {
    const groups = new Map();
    for (const { cell, label } of hubs) {
      const name = cell ? cell.outcome : "absent";
      groups.set(name, [...(groups.get(name) || []), label]);
    }
    const said = [...groups].map(([name, labels]) => [outcomeWord(name), ` under ${labels.join(", ")}`]);
    const parts = said.flatMap((part, i) => (i ? ["; ", part] : [part]));
    const bad = hubs.some(({ cell }) => cell && matrix.BAD.has(cell.outcome));
    return element("section", { class: `verdict ${bad ? "bad" : "good"}`, "aria-label": "Verdict" },
      element("p", {}, parts, "."),
      row.flaky && element("p", {}, `It is flaky: ${row.rate}.`),
      row.pasts.map((past, i) => past && past.since !== null && !past.flaky
        && element("p", {}, `It has failed under ${run.columns[i].label} since ${run.runs[past.since].label}.`)),
      (row.test.verdicts || []).map((each) => [
        run.runs.length > 1 && element("p", { class: "dim" }, `${run.runs[each.run].label}:`), reasons(each)]));
  }

  const SAID = {
    "differs": "It depends on the hub",
    "fails differently": "It fails on every hub, in different ways",
    "costs more": "It cost more on one hub in that run",
    "by design": "By design, it is skipped on a hub",
  };

  // Why a test depends on its hub, as the summary of the run has it.
  function reasons(verdict) {
    const said = SAID[verdict.kind];
    const counts = matrix.counts(verdict);
    return [
      said && element("p", {}, `${said}${counts ? `: ${counts}` : ""}.`),
      verdict.reasons && element("ul", { class: "reasons" },
        verdict.reasons.map((line) => element("li", {}, line))),
      verdict.parting && element("details", { class: "parting", open: true },
        element("summary", {}, "Where two hubs part"),
        element("pre", { class: "text", tabindex: "0" }, verdict.parting.join("\n"))),
    ];
  }

  function outcomeWord(name) {
    return name === "absent" ? absent() : outcome(name);
  }

  function findings(row, hubs) {
    const found = hubs.flatMap(({ label, i, detail }) =>
      (detail ? detail.attempts : []).flatMap((attempt) => attempt.findings.map((finding) => ({ label, i, finding }))));
    if (!found.length) return [];
    return [element("section", { class: "card findings" },
      element("h3", {}, plural(found.length, "finding")),
      element("ul", {}, [...alike(found).values()].map((group) => findingItem(row, group))))];
  }

  // Findings that differ in their figures alone: on several hubs, or again and again.
  function alike(found) {
    const groups = new Map();
    for (const each of found) {
      const { kind, title } = each.finding;
      const key = `${kind}\n${title.replace(/\d+(?:[.,]\d+)*/g, "0")}`;
      groups.set(key, [...(groups.get(key) || []), each]);
    }
    return groups;
  }

  function findingItem(row, group) {
    const labels = [...new Set(group.map(({ label }) => label))];
    const shown = labels.map((label) => group.find((each) => each.label === label));
    const more = group.filter((each) => !shown.includes(each));
    const { kind, title } = shown[0].finding;
    return element("li", {},
      element("p", {}, labels.map((label) => [element("span", { class: "tag hub" }, label), " "]),
        kindTag(kind), " ", element("strong", {}, title), doubt(shown[0].finding)),
      evidence(row, shown[0], labels.length > 1),
      shown.slice(1).map((each) => evidence(row, each, true)),
      more.length > 0 && element("details", {}, element("summary", {}, `${more.length} more alike`),
        more.map((each) => [element("p", {}, labels.length > 1 && [element("span", { class: "tag hub" }, each.label), " "],
          each.finding.title, doubt(each.finding)), evidence(row, each, false)])));
  }

  // Another version's kind may have no page yet; what is no kind at all gets no link.
  function kindTag(kind) {
    if (!/^[a-z]+( [a-z]+)*$/.test(kind)) return element("span", { class: "tag" }, kind);
    return element("a", {
      class: "tag", href: `${FINDINGS}${kind.replaceAll(" ", "-")}.html`, target: "_blank",
      rel: "noopener noreferrer", title: "What it says, what causes it, how sure it is, what to do (online)",
    }, kind);
  }

  function doubt({ certainty }) {
    return certainty && certainty !== "certain" && element("span", { class: "dim" }, ` (${certainty})`);
  }

  // What shows a finding; below a title that is another hub's, its own if nothing does.
  function evidence(row, { label, i, finding }, named) {
    const places = (finding.evidence || []).map((each) => evidenceLink(row, i, each));
    if (named && !places.length) places.push(element("span", {}, finding.title));
    return places.length > 0 && element("ul", { class: "evidence" }, places.map((place, n) =>
      element("li", {}, named && n === 0 && [element("span", { class: "tag hub" }, label), " "], place)));
  }

  function evidenceLink(row, i, evidence) {
    const place = evidence.file && (evidence.line ? `${evidence.file}:${evidence.line}` : evidence.file);
    const code = element("code", {}, evidence.text);
    if (!place) return code;
    const tab = /strace\.txt(\.gz)?$/.test(evidence.file) ? "calls" : /\.pcapng(\.gz)?$/.test(evidence.file) ? "packets"
      : /(tasks|greenthreads|hub)\.txt$/.test(evidence.file) ? "tasks" : "files";
    const line = evidence.line ? `&line=${evidence.line}` : "";
    return element("a", { href: `${matrix.address(row.id)}?tab=${tab}&hub=${i}${line}` },
      element("span", { class: "place" }, place), " ", code);
  }

  // Sections of what was alive, which has a tab of its own where it is recorded.
  const ALIVE = new Set(["Asyncio tasks", "Greenthreads", "Hub"]);

  function hubCard({ label, cell, detail }) {
    const last = detail && (detail.attempts.findLast((each) => "setup" in each.phases) || detail.attempts.at(-1));
    return element("section", { class: "card hub-card", "aria-label": label },
      element("h3", {}, label, " ", cell ? outcome(cell.outcome) : absent(),
        cell && element("span", { class: "dim", title: "setup, call and teardown, with what recording them took" }, seconds(cell.seconds))),
      last && phases(last),
      cell && [cell.reason, cell.printed].filter(Boolean)
        .map((line) => element("p", { class: "reason" }, line)),
      detail && detail.failure && fold("Failure", detail.failure, true),
      detail && detail.sections.map(({ title, text }) => fold(title, text, !(ALIVE.has(title) && last && Object.keys(last.dumps).length))),
      last && last.errors.map((error) => element("p", { class: "problem" }, error)));
  }

  function phases({ phases: spans, outcomes }) {
    const total = Object.values(spans).reduce((sum, each) => sum + each, 0) || 1;
    const parts = Object.entries(spans).map(([name, length]) => {
      const part = element("i", { class: `phase ${name} ${outcomes[name] || ""}` });
      part.style.flexGrow = Math.max(length / total, 0.02);
      return part;
    });
    return [
      element("div", { class: "bar phases", "aria-hidden": "true" }, parts),
      element("p", { class: "dim phase-times" }, Object.entries(spans).map(([name, length]) =>
        element("span", {}, `${name} ${seconds(length)}`))),
    ];
  }

  function fold(title, text, open) {
    return element("details", { open }, element("summary", {}, title),
      element("pre", { class: "text", tabindex: "0" }, marked(text)));
  }

  // pytest marks the lines of an error with an E.
  function marked(text) {
    return text.split("\n").map((line) => /^E( |$)/.test(line)
      ? element("span", { class: "error-line" }, `${line}\n`) : `${line}\n`);
  }

  function files(hub) {
    return hub.detail.attempts.map((attempt) => element("div", {},
      hub.detail.attempts.length > 1 && element("h4", {}, `attempt ${attempt.attempt}`),
      element("table", { class: "files" },
        element("tbody", {}, attempt.files.map((name) => element("tr", {},
          element("td", {}, element("a", {
            href: `${attempt.directory}/${name.split("/").map(encodeURIComponent).join("/")}`,
            target: "_blank", rel: "noopener",
          }, name)),
          element("td", {}, element("code", {}, command(`${attempt.path}/${name}`)))))))));
  }

  function command(path) {
    const [, program] = OPENED_BY.find(([pattern]) => pattern.test(path)) || [null, "xdg-open"];
    return `${program} ${runs.quoted(path)}`;
  }

  return { show, files, fold };
})();
