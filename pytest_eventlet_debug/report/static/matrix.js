"use strict";

// The first view: tests by hubs, with filters that the address holds.
eventletReport.matrix = (() => {
  const { element, seconds, plural, outcome, absent, testName, isNarrow, say } = eventletReport.dom;
  const { history: inTime } = eventletReport;
  const BAD = inTime.BAD;
  const SLOW_SECONDS = 1;
  // Durations of one test scatter; below both of these they count as equal.
  const NOISE_FACTOR = 3;
  const NOISE_SECONDS = 0.25;
  // Runs of a test that its row shows; the test's page shows all.
  const STRIP = 10;

  const FILTERS = [
    ["differs", "Differs", "end differently from hub to hub"],
    ["failed", "Failed", "failed, crashed or hung on a hub"],
    ["flaky", "Flaky", "ended differently on one hub when they ran again, or failed in runs between others"],
    ["broke", "New failures", "failed in the last run and not in the one before"],
    ["costs", "Cost more", "ended alike on all hubs and cost more on one, seen once"],
    ["slow", "Slow", `took ${SLOW_SECONDS} s or longer, or much longer on one hub`],
    ["findings", "Has findings", "have findings in their recordings"],
  ];

  // Where one comes back to from a test: the list as it was left.
  let last = "#/";

  // Say of each test once what the filters ask.
  function judge(run, test, index) {
    const shown = test.cells.filter(Boolean);
    const pasts = run.columns.map((column, i) => test.cells[i] && inTime.of(run, column, test.cells[i]));
    const times = shown.map((cell) => cell.seconds);
    const longest = Math.max(...times), shortest = Math.min(...times);
    const verdicts = test.verdicts || [];
    const kinds = new Set(verdicts.map(({ kind }) => kind));
    // What a run has judged after its reruns counts for more than one look at its outcomes.
    const unsure = kinds.has("flaky") || kinds.has("by design")
      || pasts.some((past) => past && past.several && past.flaky);
    // Half a surrogate pair, from a file's name that is not UTF-8, fits no address.
    const id = test.id.toWellFormed();
    return {
      index, test, id, pasts,
      text: [id, ...shown.flatMap((c) => [c.reason, c.printed]), ...shown.flatMap((c) => c.findings || []),
        ...verdicts.flatMap(({ reasons }) => reasons || [])]
        .join("\n").toLowerCase(),
      differs: kinds.has("differs") || kinds.has("fails differently") || (!unsure && endsDiffer(run, test)),
      costs: kinds.has("costs more"),
      failed: shown.some((cell) => BAD.has(cell.outcome)),
      flaky: pasts.some((past) => past && past.flaky) || kinds.has("flaky"),
      broke: pasts.some((past) => past && past.broke),
      badRuns: pasts.reduce((sum, past) => sum + (past && past.several ? past.bad : 0), 0),
      rate: [
        ...pasts.flatMap((past, i) => past && past.rate ? [`${run.columns[i].label}: ${past.rate}`] : []),
        ...verdicts.filter(({ kind }) => kind === "flaky").map(counts),
      ].join(", "),
      drags: longest > NOISE_FACTOR * shortest && longest - shortest > NOISE_SECONDS,
      slow: longest >= SLOW_SECONDS,
      longest,
      findings: shown.reduce((sum, cell) => sum + (cell.findings || []).length, 0),
    };
  }

  // Whether a test has last ended differently on hubs that ran on the same.
  function endsDiffer(run, test) {
    const ends = new Map();
    return run.columns.some((column, i) => {
      const cell = test.cells[i];
      if (!cell) return false;
      if (!ends.has(column.variant)) ends.set(column.variant, cell.outcome);
      return ends.get(column.variant) !== cell.outcome;
    });
  }

  // How often a test failed on each hub, in words.
  function counts({ hubs }) {
    return (hubs || []).map(([hub, words]) => `${hub} ${words}`).join(", ");
  }

  function judged(run) {
    run.judged ||= run.tests.map((test, index) => judge(run, test, index));
    return run.judged;
  }

  function passes(row, state) {
    if (state.text && !row.text.includes(state.text.toLowerCase())) return false;
    return [...state.filters].every((name) => name === "slow" ? row.slow || row.drags : row[name]);
  }

  function show(main, run, query, from) {
    last = location.hash || "#/";
    const rows = judged(run);
    const state = {
      filters: new Set((query.get("f") || "").split(",").filter(Boolean)),
      text: query.get("q") || "",
    };
    const search = element("input", {
      type: "search", id: "search", placeholder: "Search tests, errors, findings  ( / )",
      "aria-label": "Search tests, errors and findings", value: state.text, autocomplete: "off",
      spellcheck: "false",
    });
    const past = run.columns.some((column) => column.runs.length > 1);
    const buttons = FILTERS.filter(([name]) => past || name !== "broke").map(([name, text, explained]) => {
      const count = rows.filter((row) => passes(row, { filters: [name] })).length;
      return element("button", {
        type: "button", class: "filter", "data-filter": name, title: `Tests that ${explained}`,
        "aria-pressed": String(state.filters.has(name)), disabled: !count && !state.filters.has(name),
      }, text, " ", element("span", { class: "count" }, count.toLocaleString("en")));
    });
    const shownCount = element("p", { class: "shown", "aria-live": "polite" });
    const holder = element("div", { id: "matrix", class: "table" });
    main.replaceChildren(
      overview(run, rows),
      element("div", { class: "toolbar", role: "search" }, search,
        element("div", { class: "filters", role: "group", "aria-label": "Show only tests that" },
          buttons), shownCount),
      holder,
    );
    const table = makeTable(holder, run, rows);
    const apply = () => {
      table.setFilter((row) => passes(row, state));
      const count = table.getDataCount("active");
      shownCount.textContent = count === rows.length
        ? plural(count, "test") : `${count.toLocaleString("en")} of ${plural(rows.length, "test")}`;
    };
    const remember = () => {
      const parts = [];
      if (state.filters.size) parts.push(`f=${[...state.filters].join(",")}`);
      if (state.text) parts.push(`q=${encodeURIComponent(state.text)}`);
      last = `#/${parts.length ? "?" + parts.join("&") : ""}`;
      history.replaceState(null, "", last);
    };
    table.on("tableBuilt", () => {
      apply();
      sortByKey(holder);
      const row = from && table.getRows("active").find((each) => each.getData().id === from);
      if (row) focus(row, "center");
    });
    search.addEventListener("input", () => { state.text = search.value; apply(); remember(); });
    for (const button of buttons) {
      button.addEventListener("click", () => {
        const name = button.dataset.filter;
        if (!state.filters.delete(name)) state.filters.add(name);
        button.setAttribute("aria-pressed", String(state.filters.has(name)));
        apply();
        remember();
        say(shownCount.textContent);
      });
    }
    holder.addEventListener("keydown", (event) => moveFocus(event, table, holder));
    search.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") moveFocus(event, table, holder);
    });
    const fromPage = (event) => { if (event.target === document.body) moveFocus(event, table, holder); };
    document.addEventListener("keydown", fromPage);
    return () => {
      document.removeEventListener("keydown", fromPage);
      table.destroy();
    };
  }

  // How the run ended, a line for each hub.
  function overview(run, rows) {
    const items = run.columns.map((column, i) => {
      const counts = new Map();
      let total = 0;
      for (const { test } of rows) {
        const cell = test.cells[i];
        if (!cell) continue;
        counts.set(cell.outcome, (counts.get(cell.outcome) || 0) + 1);
        total += cell.seconds;
      }
      const order = ["crashed", "hung", "failed", "error", "xpassed", "passed", "skipped", "xfailed"];
      const all = [...counts.values()].reduce((sum, count) => sum + count, 0);
      const present = order.filter((name) => counts.has(name));
      const bar = element("div", { class: "bar", "aria-hidden": "true" },
        present.map((name) => {
          const part = element("i", { class: name });
          part.style.flexGrow = counts.get(name) / all;
          return part;
        }));
      return element("li", {},
        element("h2", {}, column.label, column.runs.length > 1
          && element("span", { class: "dim" }, ` ${inTime.span(run, column)}`)), bar,
        element("p", {}, present.map((name) =>
          element("span", { class: `tally ${name}` }, `${counts.get(name).toLocaleString("en")} ${name}`)),
        element("span", { class: "tally dim" }, `in ${seconds(total)}`)));
    });
    return element("ul", { class: "overview", "aria-label": "How the tests ended" }, items);
  }

  function cellElement(run, row, i) {
    const cell = row.test.cells[i];
    if (!cell) return absent();
    const slowest = row.drags && cell.seconds === row.longest;
    return element("span", { class: "cell", title: cell.reason || "" },
      outcome(cell.outcome),
      row.pasts[i].several && inTime.strip(row.pasts[i], run.columns[i].label, STRIP),
      element("span", { class: slowest ? "time drags" : "time", title: slowest ? "much longer than elsewhere" : null },
        slowest ? "▲ " : "", seconds(cell.seconds)));
  }

  function nameElement(row) {
    const notes = [];
    if (row.costs) notes.push(element("span", { class: "tag" }, "cost more"));
    if (row.flaky) notes.push(element("span", { class: "tag flaky", title: row.rate }, "flaky"));
    return element("span", { class: "name-cell" },
      element("a", { href: address(row.id), title: row.id }, testName(row.id)), notes);
  }

  function address(id) {
    return `#/test/${encodeURIComponent(id)}`;
  }

  function makeTable(holder, run, rows) {
    const narrow = isNarrow();
    const past = run.columns.some((column) => column.runs.length > 1);
    const cells = run.columns.map((column, i) => ({
      title: column.label, field: `hub${i}`, width: narrow ? 88 : 178 + (column.runs.length > 1 ? 10 + 11 * Math.min(column.runs.length, STRIP) : 0), minWidth: narrow ? 88 : 90,
      titleFormatter: plainTitle, formatter: (cell) => cellElement(run, cell.getData(), i),
      sorter: (a, b, first, second) => rank(first.getData(), i) - rank(second.getData(), i),
    }));
    return new Tabulator(holder, {
      data: rows, index: "index", layout: "fitColumns", height: "100%", rowHeight: narrow ? 48 : 33,
      renderVerticalBuffer: 200, placeholder: "No test matches.",
      columns: [
        { title: "Test", field: "id", minWidth: narrow ? 200 : 260, widthGrow: 5, formatter: (cell) => nameElement(cell.getData()) },
        ...cells,
        ...(past ? [{ title: "Failed runs", field: "badRuns", width: 130, hozAlign: "right",
          formatter: (cell) => document.createTextNode(cell.getValue() || "") }] : []),
        { title: "Findings", field: "findings", width: 108, hozAlign: "right",
          formatter: (cell) => document.createTextNode(cell.getValue() || "") },
      ],
      columnDefaults: { headerSortTristate: true },
    });
  }

  // Tabulator makes markup of titles; a hub's name may be a user's.
  function plainTitle(cell) {
    return document.createTextNode(cell.getValue());
  }

  function rank(row, i) {
    const order = ["crashed", "hung", "failed", "error", "xpassed", "skipped", "xfailed", "passed"];
    const cell = row.test.cells[i];
    return cell ? order.indexOf(cell.outcome) - Math.min(cell.seconds, 1e5) / 1e6 : order.length;
  }

  // Tabulator's headers sort by mouse alone.
  function sortByKey(holder) {
    for (const header of holder.querySelectorAll(".tabulator-col.tabulator-sortable")) {
      header.tabIndex = 0;
      header.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          header.click();
        }
      });
    }
  }

  // Arrow keys go from test to test, also to rows that are not drawn yet.
  function moveFocus(event, table, holder) {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 20, PageUp: -20 }[event.key];
    if (!step && event.key !== "Home" && event.key !== "End") return;
    const rows = table.getRows("active");
    if (!rows.length) return;
    event.preventDefault();
    const current = document.activeElement.closest(".tabulator-row");
    let position = current ? rows.findIndex((row) => row.getElement() === current) + step : 0;
    if (event.key === "Home") position = 0;
    if (event.key === "End") position = rows.length - 1;
    focus(rows[Math.max(0, Math.min(rows.length - 1, position))], "nearest");
  }

  function focus(row, place) {
    row.scrollTo(place, false).then(() => row.getElement().querySelector("a").focus({ preventScroll: true }));
  }

  return { show, judged, counts, address, back: () => last, BAD };
})();
