"use strict";

// System calls and packets as tables with a search.
eventletReport.tables = (() => {
  const { element, isNarrow, plural } = eventletReport.dom;

  const UNTOLD = "of pytest and of this plugin, of imports, and of the allocator";

  function milliseconds(us) {
    return (us / 1000).toFixed(3);
  }

  // A row is a number: where it is in the columns of the data. Objects for 100,000 rows are
  // made once, with nothing in them that is not shown or searched.
  function rowsOf(data, kinds) {
    const wanted = new Set(kinds.map((kind) => data.kinds.indexOf(kind)));
    const rows = [];
    for (let i = 0; i < data.t.length; i++) {
      if (!wanted.has(data.k[i])) continue;
      const [pid, greenthread] = data.lanes[data.l[i]];
      rows.push({
        i, line: data.i[i], time: data.t[i], took: data.d[i], pid: pid ?? "", text: data.texts[i],
        greenthread: greenthread ?? "", failed: data.f[i], cause: data.causes[i], place: placeIn(data.texts[i]),
      });
    }
    return rows;
  }

  // The rows that tell the story, as the timeline does: the first call of an import stands for it.
  function withStory(rows, data) {
    const { untold = [], imports = {} } = data;
    return rows.flatMap((row) => {
      if (!imports[row.i]) return [{ ...row, untold: Boolean(untold[row.i]) }];
      const [took, text] = imports[row.i];
      const whole = { ...row, i: row.i + 0.5, took, text, failed: 0, place: placeIn(text), folded: true };
      return [whole, { ...row, untold: true }];
    });
  }

  // Where a call was made: the line of the user's own code, if another one is nearer to it.
  function placeIn(text) {
    const [, at, from] = / at ([^"]+?:\d+ in [^"]+?)(?:, from ([^"]+))?$/.exec(text) || [];
    return { at, text: from || at || "" };
  }

  const TIME = { title: "ms", field: "time", width: 88, hozAlign: "right", headerHozAlign: "right", formatter: (cell) => plain(milliseconds(cell.getValue())), headerTooltip: "milliseconds since the test began" };
  const GREENTHREAD = { title: "Greenthread", field: "greenthread", width: 124 };

  function plain(text) {
    return document.createTextNode(text);
  }

  function calls(body, data, place) {
    const line = { title: "Line", field: "line", width: 68, hozAlign: "right", headerHozAlign: "right" };
    const length = { title: "took", field: "took", width: 80, hozAlign: "right", headerHozAlign: "right", headerTooltip: "milliseconds", formatter: took };
    const thread = { title: "Thread", field: "pid", width: 78 };
    const what = { title: "Call", field: "text", minWidth: 240, widthGrow: 3, formatter: call };
    const where = { title: "Place", field: "place", minWidth: 140, widthGrow: 2, headerSort: false, headerTooltip: "the line of your own code; point at it for the one that made the call", formatter: whence };
    return table(body, data, withStory(rowsOf(data, ["syscall", "signal", "thread"]), data), place.line, "call", isNarrow()
      ? [line, TIME, what, where, GREENTHREAD, length, thread]
      : [line, TIME, length, thread, GREENTHREAD, what, where]);
  }

  function packets(body, data, place) {
    return table(body, data, rowsOf(data, ["packet"]), place.line, "packet", [
      { title: "No.", field: "line", width: 64, hozAlign: "right", headerHozAlign: "right" },
      TIME,
      { title: "Packet", field: "text", minWidth: 240, widthGrow: 1, formatter: call },
      { title: "Sent by", field: "cause", width: 340, headerSort: false, formatter: (cell) => sender(cell, place) },
    ]);
  }

  function took(cell) {
    return plain(cell.getValue() < 0 ? "" : milliseconds(cell.getValue()));
  }

  function call(cell) {
    const { text, failed, place } = cell.getData();
    const shown = place.text ? text.slice(0, text.lastIndexOf(` at ${place.at}`)) : text;
    return element("span", { class: failed ? "call failed" : "call", title: text }, shown);
  }

  function whence(cell) {
    const { at, text } = cell.getValue();
    return element("span", { class: "call", title: at }, text);
  }

  function sender(cell, place) {
    const { cause, greenthread } = cell.getData();
    if (!cause) return plain("");
    const [line, fd, name] = cause;
    const who = greenthread ? `[${greenthread}] ` : "";
    const text = `${who}${name}(fd ${fd}), line ${line}`;
    return element("a", { class: "sender", title: `${text} of the trace`, href: place.address("calls", line) }, text);
  }

  function table(body, data, rows, focus, noun, columns) {
    const search = element("input", { type: "search", placeholder: `Search ${noun}s`, "aria-label": `Search ${noun}s` });
    const count = element("span", { class: "dim", "aria-live": "polite" });
    const more = rows.filter((row) => row.untold).length - rows.filter((row) => row.folded).length;
    const everything = element("input", { type: "checkbox", onchange: () => narrow() });
    const holder = element("div", { class: "table" });
    body.append(element("div", { class: "toolbar small" }, search, count,
      more > 0 && element("label", { class: "all", title: UNTOLD }, everything, ` ${more.toLocaleString("en")} more ${more === 1 ? noun : `${noun}s`}`)),
      ...data.problems.map((problem) => element("p", { class: "problem" }, problem)),
      data.leftOut ? element("p", { class: "dim" }, `${plural(data.leftOut, "row")} in the middle of the trace are left out`) : "",
      holder);
    const made = new Tabulator(holder, {
      data: rows, index: "i", layout: "fitColumns", maxHeight: 480, rowHeight: 26, columns,
      columnDefaults: { formatter: (cell) => plain(cell.getValue()) }, placeholder: `No ${noun} matches.`,
      rowFormatter: (row) => row.getElement().classList.toggle("focus", row.getData().line === focus),
    });
    const narrow = () => {
      const text = search.value.toLowerCase();
      made.setFilter((row) => !(everything.checked ? row.folded : row.untold)
        && (row.text.toLowerCase().includes(text) || String(row.greenthread).toLowerCase().includes(text)));
      count.textContent = plural(made.getDataCount("active"), noun);
    };
    const target = focus && rows.find((row) => row.line >= focus && !row.folded);
    if (target && target.untold) everything.checked = true;
    // A filter that is set before the table is there is lost.
    made.on("tableBuilt", () => {
      search.addEventListener("input", narrow);
      narrow();
      if (target) made.scrollToRow(target.i, "center");
    });
    return () => made.destroy();
  }

  return { calls, packets };
})();
