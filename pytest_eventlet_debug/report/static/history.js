"use strict";

// What several runs in time say of a test.
eventletReport.history = (() => {
  const { element, seconds, plural, outcome, letter } = eventletReport.dom;
  const BAD = new Set(["failed", "error", "hung", "crashed"]);

  // Sum up the runs of a test in a column: how each ended, how many failed, and whether that
  // comes and goes.
  function of(run, column, cell) {
    const attempts = (cell.past || [[...(cell.earlier || []), cell.outcome].join(" ")])
      .map((each) => each.split(" "));
    const runs = cell.runs || column.runs.slice(-attempts.length);
    const ends = attempts.map((each) => each.at(-1));
    const ran = ends.flatMap((end, i) => end === "skipped" ? [] : [{ bad: BAD.has(end), run: runs[i] }]);
    const bad = ran.filter((each) => each.bad).length;
    // A test that failed until it was mended is not flaky; what turns twice may be.
    const turns = ran.filter((each, i) => i && each.bad !== ran[i - 1].bad
      && setting(run.runs[each.run]) === setting(run.runs[ran[i - 1].run])).length;
    const unsure = attempts.filter((each) => new Set(each).size > 1);
    const several = column.runs.length > 1;
    return {
      runs, attempts, ends, bad, several, ran: ran.length,
      flaky: turns > 1 || unsure.length > 0,
      // The first of the last runs if all of those failed, and some before did not.
      since: several && ran.length > bad && ran.at(-1).bad ? ran[ran.findLastIndex((each) => !each.bad) + 1].run : null,
      broke: several && ran.length > 1 && ran.at(-1).bad && !ran.at(-2).bad,
      rate: several ? ofRuns(bad, ran.length, unsure.length) : unsure.map(ofAttempts).join(", "),
    };
  }

  // What of a run must be alike before a test that ends otherwise is called flaky.
  function setting({ python, versions }) {
    const { "pytest-eventlet-debug": ours, ...others } = versions;
    return JSON.stringify([python, others]);
  }

  function ofRuns(bad, ran, unsure) {
    return [bad && `failed in ${bad} of ${plural(ran, "run")}`,
      unsure && `ended differently when it ran again in ${plural(unsure, "run")}`].filter(Boolean).join(", ");
  }

  function ofAttempts(attempts) {
    return `failed ${attempts.filter((each) => BAD.has(each)).length} of ${attempts.length}`;
  }

  // The last runs as letters, the oldest first.
  function strip(past, label, most) {
    const groups = grouped(past.attempts.slice(-most));
    return element("span", {
      class: "strip", role: "img", title: title(past), "aria-label": spoken(past, label, groups),
    }, groups.map(({ attempts, count }) =>
      element("i", { class: named(attempts) }, letter(attempts.at(-1)).repeat(count))));
  }

  // Runs that ended alike one after another.
  function grouped(runs) {
    const groups = [];
    for (const attempts of runs) {
      const words = attempts.join(", then ");
      if (groups.length && groups.at(-1).words === words) groups.at(-1).count++;
      else groups.push({ attempts, words, count: 1 });
    }
    return groups;
  }

  function named(attempts) {
    return new Set(attempts).size > 1 ? `${attempts.at(-1)} unsure` : attempts.at(-1);
  }

  function title(past) {
    return `Last ${plural(past.ends.length, "run")}, the oldest first${past.rate ? `: ${past.rate}` : ""}`;
  }

  function spoken(past, label, groups) {
    const said = groups.map(({ words, count }) => count > 1 ? `${count} times ${words}` : words).join("; ");
    const shown = groups.reduce((sum, { count }) => sum + count, 0);
    return `${label}, last ${plural(shown, "run")}, the oldest first: ${said}.${past.rate ? ` It ${past.rate}.` : ""}`;
  }

  function date({ started_ns: ns }) {
    return new Date(Number(BigInt(ns) / 1000000n));
  }

  function span(run, column) {
    const [first, last] = [column.runs.at(0), column.runs.at(-1)].map((number) => date(run.runs[number]).toLocaleDateString());
    return `latest of ${column.runs.length} runs, ${first === last ? first : `${first} – ${last}`}`;
  }

  // The part of a test's page that shows its runs in time.
  function card(run, row) {
    const columns = run.columns.map((column, i) => ({ column, i, past: row.pasts[i] }))
      .filter(({ past }) => past && past.ends.length > 1);
    if (!columns.length) return [];
    const body = element("div", {}, columns.map(({ column, past }) => strip(past, column.label, Infinity)));
    eventletReport.load(run.history).then(
      (all) => body.replaceChildren(...filled(run, row, columns, all[row.test.id])),
      (error) => body.replaceChildren(element("p", { class: "problem" }, error.message)));
    return [element("section", { class: "card history", "aria-label": "History" },
      element("h3", {}, "History"), body)];
  }

  function filled(run, row, columns, pasts) {
    return [
      element("div", { class: "hubs" }, columns.map(({ column, i, past }) => element("div", {},
        element("p", {}, element("strong", {}, column.label), " ", past.rate || "did not fail", " ",
          element("span", { class: "dim" }, durations(pasts[i]))),
        chart(past, column.label, pasts[i])))),
      table(run, row, columns, pasts),
    ];
  }

  function durations(past) {
    const times = past.map(([, time]) => time).sort((a, b) => a - b);
    return `${seconds(times[0])} to ${seconds(times.at(-1))}, median ${seconds(times[times.length >> 1])}`;
  }

  // A bar for each run, as high as it took long, above the letter of how it ended.
  function chart(past, label, timed) {
    const longest = Math.max(...timed.map(([, time]) => time)) || 1;
    return element("div", { class: "runs", role: "img", "aria-label": spoken(past, label, grouped(past.attempts)) },
      past.attempts.map((attempts, i) => {
        const end = attempts.at(-1);
        const bar = element("i", { class: end });
        bar.style.height = `${Math.max(timed[i][1] / longest * 48, 2)}px`;
        return element("span", { title: `${attempts.join(", then ")} in ${seconds(timed[i][1])}` }, bar,
          element("b", { class: named(attempts) }, letter(end)));
      }));
  }

  function table(run, row, columns, pasts) {
    const numbers = [...new Set(columns.flatMap(({ past }) => past.runs))].sort((a, b) => b - a);
    const head = ["Run", "Started", ...columns.map(({ column }) => column.label)];
    return element("details", { open: numbers.length <= 10 }, element("summary", {}, plural(numbers.length, "run")),
      element("table", { class: "files" },
        element("thead", {}, element("tr", {}, head.map((text) => element("th", { scope: "col" }, text)))),
        element("tbody", {}, numbers.map((number) => element("tr", {},
          element("td", {}, runLink(run.runs[number], row)),
          element("td", {}, date(run.runs[number]).toLocaleString()),
          columns.map(({ past, i }) => element("td", {}, ended(past, pasts[i], number))))))));
  }

  // A run that has a report of its own is a link to the test in it.
  function runLink({ label, page }, row) {
    return page ? element("a", { href: `${page}#/test/${encodeURIComponent(row.id)}` }, label) : label;
  }

  function ended(past, timed, number) {
    const at = past.runs.indexOf(number);
    if (at < 0) return [];
    const [, time, reason] = timed[at];
    return [past.attempts[at].map((each) => [outcome(each), " "]),
      element("span", { class: "dim" }, seconds(time)), reason && element("p", { class: "dim" }, reason)];
  }

  return { of, strip, span, card, BAD };
})();
