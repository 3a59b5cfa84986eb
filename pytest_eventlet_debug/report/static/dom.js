"use strict";

// Builds the page. Text goes into text nodes alone: no markup is ever made from data.
eventletReport.dom = (() => {
  const OUTCOMES = {
    passed: "P", failed: "F", error: "E", skipped: "S", xfailed: "x", xpassed: "X",
    hung: "H", crashed: "C",
  };

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value != null) made.setAttribute(name, value);
    }
    made.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
    return made;
  }

  function seconds(value) {
    if (value == null) return "";
    if (value < 0.0995) return `${(value * 1000).toFixed(value < 0.00995 ? 1 : 0)} ms`;
    return `${value.toFixed(value < 9.95 ? 2 : 1)} s`;
  }

  function plural(count, noun) {
    return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
  }

  // An outcome in colour, as a letter and as a word.
  function outcome(name) {
    return element("span", { class: `outcome ${name}` },
      element("b", { "aria-hidden": "true" }, letter(name)), element("span", { class: "word" }, name));
  }

  function letter(name) {
    return OUTCOMES[name] || "–";
  }

  function absent() {
    return element("span", { class: "outcome absent" },
      element("b", { "aria-hidden": "true" }, "–"), element("span", { class: "word" }, "absent"));
  }

  // Lines break behind what joins the words of a name.
  function breakable(name) {
    return name.split(/(?<=[_/:.])(?=[^_/:.])/).flatMap((part, i) => (i ? [element("wbr"), part] : [part]));
  }

  // A test's id as a path that recedes and a name that stands out.
  function testName(id) {
    const at = id.indexOf("::");
    if (at < 0) return [element("span", { class: "test-name" }, breakable(id))];
    return [
      element("span", { class: "test-file" }, breakable(id.slice(0, at + 2))),
      element("span", { class: "test-name" }, breakable(id.slice(at + 2))),
    ];
  }

  // Columns of a table have no room for everything.
  function isNarrow() {
    return matchMedia("(max-width: 700px)").matches;
  }

  function say(text) {
    document.getElementById("status").textContent = text;
  }

  return { element, seconds, plural, outcome, letter, absent, testName, isNarrow, say };
})();
