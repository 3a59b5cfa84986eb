"use strict";

// Chooses the view that the address names, and the theme.
(() => {
  const { element } = eventletReport.dom;
  const main = document.getElementById("main");
  let leave = null;
  const title = document.title;
  let run = null;
  let test = null;

  function route() {
    if (leave) leave();
    leave = null;
    const [path, query = ""] = location.hash.slice(1).split("?");
    const parameters = new URLSearchParams(query);
    const from = test;
    test = path.startsWith("/test/") ? decodeURIComponent(path.slice(6)) : null;
    document.title = test !== null ? `${test} – ${title}` : title;
    document.body.dataset.view = test !== null ? "test" : path === "/run" ? "run" : "matrix";
    for (const link of document.querySelectorAll("[data-view]")) {
      if (link.dataset.view === document.body.dataset.view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (test !== null) leave = eventletReport.test.show(main, run, test, parameters);
    else if (path === "/run") eventletReport.runs.show(main, run);
    else leave = eventletReport.matrix.show(main, run, parameters, from);
  }

  function shortcuts(event) {
    if (event.target.matches("input, select, textarea")) {
      if (event.key === "Escape") leaveField(event);
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const search = document.querySelector("input[type=search]");
    if (event.key === "/" && search) {
      event.preventDefault();
      search.focus();
    } else if (event.key === "Escape" && document.body.dataset.view !== "matrix") {
      location.hash = eventletReport.matrix.back();
    }
  }

  // A browser would empty the field without a word to those who listen.
  function leaveField(event) {
    const field = event.target;
    event.preventDefault();
    if (field.matches("[type=search]") && field.value) {
      field.value = "";
      field.dispatchEvent(new Event("input", { bubbles: true }));
    } else field.blur();
  }

  function theme() {
    const button = document.getElementById("theme");
    const system = matchMedia("(prefers-color-scheme: dark)");
    let chosen = null;
    try { chosen = localStorage.getItem("eventlet-report-theme"); } catch { /* forbidden for files */ }
    const apply = () => {
      const now = chosen || (system.matches ? "dark" : "light");
      document.documentElement.dataset.theme = now;
      button.textContent = now === "dark" ? "Light" : "Dark";
      button.setAttribute("aria-label", `Switch to the ${now === "dark" ? "light" : "dark"} theme`);
      document.dispatchEvent(new Event("themechange"));
    };
    system.addEventListener("change", apply);
    button.addEventListener("click", () => {
      chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
      try { localStorage.setItem("eventlet-report-theme", chosen); } catch { /* then for this visit */ }
      apply();
    });
    apply();
  }

  theme();
  document.addEventListener("keydown", shortcuts);
  // The address names the view, so this link may not change it.
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
  eventletReport.load("report/run.js").then((loaded) => {
    run = loaded;
    window.addEventListener("hashchange", route);
    route();
  }, (error) => main.replaceChildren(element("p", { class: "problem" }, error.message)));
})();
