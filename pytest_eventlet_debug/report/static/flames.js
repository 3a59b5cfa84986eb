"use strict";

// The profile as flame graphs, one for each greenthread root.
eventletReport.flames = (() => {
  const { element, seconds } = eventletReport.dom;
  const PADDING = 6; // pixels, as in the style sheet

  async function libraries() {
    await eventletReport.library("report/d3.min.js");
    await eventletReport.library("report/d3-flamegraph.umd.min.js");
  }

  function show(body, data) {
    if (!data.flames.length) {
      body.append(element("p", { class: "dim" }, "There is no profile in this recording."));
      return null;
    }
    const total = data.flames.reduce((sum, root) => sum + root.value, 0);
    const choice = element("select", { "aria-label": "Root of the flame graph" },
      data.flames.map((root, i) => element("option", { value: i },
        `${root.name}: ${seconds(root.value / 1e6)}, ${Math.round((100 * root.value) / total)} %`)));
    const search = element("input", { type: "search", placeholder: "Search functions", "aria-label": "Search functions" });
    const reset = element("button", { type: "button" }, "Reset zoom");
    const details = element("p", { class: "flame-details dim", "aria-live": "polite" }, "A callee's time is shared among its callers in proportion to theirs.");
    const holder = element("div", { class: "flames" });
    body.append(element("div", { class: "toolbar small" }, choice, search, reset), holder, details);
    let chart = null;
    const draw = () => {
      holder.replaceChildren();
      chart = makeChart(holder, details);
      d3.select(holder).datum(data.flames[choice.value]).call(chart);
    };
    libraries().then(() => {
      draw();
      choice.addEventListener("change", draw);
      search.addEventListener("input", () => (search.value ? chart.search(escaped(search.value)) : chart.clear()));
      reset.addEventListener("click", () => chart.resetZoom());
    }, (error) => holder.append(element("p", { class: "problem" }, error.message)));
    return () => chart && chart.destroy();
  }

  // It takes what it searches for as a regular expression.
  function escaped(text) {
    return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  }

  function makeChart(holder, details) {
    const text = (node) => `${node.data.name}: ${seconds(node.data.value / 1e6)}`;
    return flamegraph.default()
      .width(holder.clientWidth - 2 * PADDING)
      .cellHeight(18)
      .minFrameSize(1)
      .transitionDuration(matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 200)
      .sort(true)
      .inverted(true)
      .selfValue(false)
      .setColorHue("warm")
      // Its own tooltip makes markup of what it shows.
      .tooltip(false)
      .label(text)
      .setDetailsHandler((said) => { details.textContent = said || "\u00a0"; });
  }

  return { show };
})();
