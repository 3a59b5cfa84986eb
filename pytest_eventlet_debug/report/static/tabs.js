"use strict";

// What was recorded of a test, a tab for each kind; nothing is loaded before its tab is opened.
eventletReport.tabs = (() => {
  const { element } = eventletReport.dom;
  const { matrix } = eventletReport;

  const has = (test) => (hub) => hub.recordings.some(({ attempt }) => attempt.files.some((name) => test.test(name)));
  const TABS = [
    ["timeline", "Timeline", has(/(strace\.txt|\.pcapng)(\.gz)?$/), recorded((...all) => eventletReport.timeline.show(...all)), "stacked"],
    ["calls", "System calls", has(/strace\.txt(\.gz)?$/), recorded((...all) => eventletReport.tables.calls(...all)), "tables"],
    ["packets", "Packets", has(/\.pcapng(\.gz)?$/), recorded((...all) => eventletReport.tables.packets(...all)), "tables"],
    ["profile", "Profile", has(/profile\.cprof$/), recorded((...all) => eventletReport.flames.show(...all)), "stacked"],
    ["tasks", "Tasks and greenthreads", (hub) => hub.detail && hub.detail.attempts.some((each) => Object.keys(each.dumps).length), dumps, "beside"],
    ["files", "Files", (hub) => hub.detail && hub.detail.attempts.length, files, "beside"],
  ];

  function add(body, view, hubs) {
    const tabs = TABS.filter(([, , there]) => hubs.some(there));
    if (!tabs.length) {
      body.append(element("p", { class: "dim" }, "Nothing was recorded of this test."));
      return;
    }
    const panel = element("div", { class: "panel", role: "tabpanel", id: "panel", tabindex: "-1" });
    const buttons = tabs.map(([name, title]) => element("button", {
      type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "panel",
      onclick: () => open(name, true),
    }, title));
    const list = element("div", { class: "tabs", role: "tablist", "aria-label": "Recordings" }, buttons);
    list.addEventListener("keydown", (event) => walk(event, buttons));
    body.append(list, panel);
    // What was recorded is below what may be pages of output.
    body.querySelector(".verdict").append(element("p", { class: "jumps" }, "Recorded: ", tabs.map(([name, title]) =>
      element("button", { type: "button", onclick: () => { open(name, true); jump(); } }, title))));
    let closers = [];
    view.closers.push(() => closers.forEach((close) => close()));

    function open(name, byUser) {
      const tab = tabs.find(([each]) => each === name) || tabs[0];
      buttons.forEach((button, i) => {
        button.setAttribute("aria-selected", String(tabs[i] === tab));
        button.tabIndex = tabs[i] === tab ? 0 : -1;
      });
      panel.setAttribute("aria-labelledby", `tab-${tab[0]}`);
      closers.forEach((close) => close());
      closers = [];
      if (byUser) {
        view.parameters = new URLSearchParams({ tab: tab[0] });
        history.replaceState(null, "", `${matrix.address(view.row.id)}?${view.parameters}`);
      }
      panel.replaceChildren(element("div", { class: `hubs ${tab[4]}` }, hubs.filter(tab[2]).map((hub) => {
        const content = element("div", { class: "content" });
        tab[3](content, hub, view, (close) => closers.push(close));
        return element("section", { class: "recording", "aria-label": `${hub.label}: ${tab[1]}` }, element("h3", {}, hub.label), content);
      })));
    }

    function jump() {
      list.scrollIntoView({ block: "start" });
      list.querySelector("[aria-selected=true]").focus({ preventScroll: true });
    }

    const asked = view.parameters.get("tab");
    open(asked, false);
    if (asked) list.scrollIntoView({ block: "start" });
  }

  function walk(event, buttons) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = buttons.indexOf(document.activeElement);
    const next = buttons[(at + step + buttons.length) % buttons.length];
    next.focus();
    next.click();
  }

  // Show one of a hub's recordings, the last one first, with a choice where there are several.
  function recorded(show) {
    return (content, hub, view, onClose) => {
      const body = element("div");
      const choice = element("select", { "aria-label": "Recording", onchange: () => load() },
        hub.recordings.map(({ label }, i) => element("option", { value: i }, label)));
      const first = hub.recordings.findLastIndex(({ part }) => !part.block);
      choice.value = String(Math.max(first, 0));
      content.append(hub.recordings.length > 1 ? choice : "", body);
      let close = null;
      let gone = false;
      onClose(() => { gone = true; if (close) close(); });
      async function load() {
        if (close) close();
        close = null;
        body.replaceChildren(element("p", { class: "loading" }, "Loading…"));
        try {
          const data = await eventletReport.load(hub.recordings[choice.value].part.script);
          if (gone) return;
          body.replaceChildren();
          close = show(body, data, placeOf(hub, view));
        } catch (error) {
          body.replaceChildren(element("p", { class: "problem" }, error.message));
        }
      }
      load();
    };
  }

  // The line that the address points at, if it is this hub's, and addresses of other lines.
  function placeOf(hub, view) {
    const line = Number(view.parameters.get("line"));
    return {
      line: line && Number(view.parameters.get("hub")) === hub.i ? line : null,
      address: (tab, other) => `${matrix.address(view.row.id)}?tab=${tab}&hub=${hub.i}&line=${other}`,
    };
  }

  function dumps(content, hub) {
    const { attempts } = hub.detail;
    for (const { attempt, dumps } of attempts) {
      const which = attempts.length > 1 ? `, attempt ${attempt}` : "";
      for (const [name, text] of Object.entries(dumps)) content.append(eventletReport.test.fold(`${name}${which}`, text, true));
    }
  }

  function files(content, hub) {
    content.append(...eventletReport.test.files(hub));
  }

  return { add };
})();
