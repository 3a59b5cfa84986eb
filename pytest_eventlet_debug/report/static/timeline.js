"use strict";

// A test's recordings on one clock: greenthreads as lanes, with calls and packets on them.
//
// Drawn here, on a canvas: vis-timeline has an element in the page for each event, and is at less
// than a frame a second with 10,000; flame-chart-js has neither scrolling lanes nor points in time.
eventletReport.timeline = (() => {
  const { element, isNarrow, plural } = eventletReport.dom;

  const LANE = 22; // pixels
  const LABELS = isNarrow() ? 100 : 150;
  const RULER = 22;
  const MAX_HEIGHT = 460;
  const POINT = 4;

  const GROUPS = {
    wait: /^(e?poll.*|p?select.*|_newselect|(clock_)?nanosleep|futex.*|pause|wait.*)$/,
    network: /^(send.*|recv.*|connect|accept.*|socket.*|bind|listen|shutdown|[gs]etsockopt|getpeername|getsockname)$/,
    file: /^(open.*|close.*|p?read.*|p?write.*|.*stat.*|lseek|access|faccess.*|unlink.*|rename.*|mkdir.*|getdents.*|fcntl|ioctl|dup.*|pipe.*|eventfd.*|import)$/,
  };
  const LEGEND = ["wait", "network", "file", "other", "failed", "packet"];

  function groupOf(name) {
    return Object.keys(GROUPS).find((group) => GROUPS[group].test(name)) || "other";
  }

  // The data as the text timeline tells it: without pytest's own calls and the allocator's, with an
  // import as one row, and with what repeats marked. Recordings of before have no such columns.
  function folded(data) {
    const story = { ...data, d: data.d.slice(), f: data.f.slice(), n: data.n.slice(), texts: data.texts.slice(),
      names: [...data.names, "import"], hidden: data.untold || [] };
    for (const [i, [duration, text]] of Object.entries(data.imports || {})) {
      story.d[i] = duration;
      story.f[i] = 0; // it looks for a module in one place after another
      story.n[i] = data.names.length;
      story.texts[i] = text;
    }
    return data.repeats && data.repeats.length ? withRepeats(story) : story;
  }

  // Add a row for each turn of calls that comes again and again, from its first call to its last.
  function withRepeats(story) {
    const made = { ...story, kinds: [...story.kinds, "repeat"], lanes: [...story.lanes, [null, null]] };
    for (const name of ["t", "k", "l", "f", "i", "hidden"]) made[name] = story[name].slice();
    for (const [first, last, count, calls] of story.repeats) {
      made.t.push(story.t[first]);
      made.d.push(story.t[last] + Math.max(story.d[last], 0) - story.t[first]);
      made.k.push(made.kinds.length - 1);
      made.l.push(made.lanes.length - 1);
      made.f.push(0);
      made.i.push(story.i[first]);
      made.n.push(made.names.length);
      made.hidden.push(0);
      made.names.push(`${count.toLocaleString("en")} × ${calls}`);
      made.texts.push(`${count.toLocaleString("en")} times: ${calls}`);
    }
    return made;
  }

  // Whose calls a lane has: a greenthread's, or else those of a thread or a program.
  function nameOf(data, [pid, greenthread]) {
    return greenthread ?? (pid === null ? "" : programs(data).get(pid) || `thread ${pid}`);
  }

  // The programs that child processes have turned into, by their ids.
  function programs(data) {
    if (data.programs) return data.programs;
    const execve = data.names.indexOf("execve");
    data.programs = new Map();
    data.n.forEach((name, i) => {
      if (name !== execve || data.f[i]) return;
      const [pid] = data.lanes[data.l[i]];
      const [, program] = /^execve\("(?:[^"]*\/)?([^"/]+)"/.exec(data.texts[i]) || [];
      if (program) data.programs.set(pid, `${program} ${pid}`);
    });
    return data.programs;
  }

  // Put each row on a lane: phases first, then greenthreads and threads as they appear, then
  // the packets of which nobody knows who sent them.
  function layOut(data) {
    const names = data.names.map(groupOf);
    const phase = data.kinds.indexOf("phase"), dump = data.kinds.indexOf("dump");
    const packet = data.kinds.indexOf("packet"), signal = data.kinds.indexOf("signal");
    const switched = data.kinds.indexOf("switch"), repeat = data.kinds.indexOf("repeat");
    const lanes = new Map([["phases", { label: "phases", rows: [] }]]);
    const running = new Map();
    let end = 1;
    let begin = 0;
    data.t.forEach((time, i) => {
      const kind = data.k[i];
      const [pid, own] = data.lanes[data.l[i]];
      if (own !== null && kind !== packet) running.set(pid, own);
      // A signal comes while some greenthread runs.
      const greenthread = kind === signal ? own ?? running.get(pid) ?? null : own;
      if (kind === switched || (data.hidden && data.hidden[i])) return;
      begin = Math.min(begin, time);
      end = Math.max(end, time + Math.max(data.d[i], 0));
      const key = kind === phase || kind === dump ? "phases" : kind === repeat ? "repeats" : pid === null ? "packets" : `${pid}/${greenthread}`;
      if (!lanes.has(key)) {
        const label = key === "packets" || key === "repeats" ? key : nameOf(data, [pid, greenthread]);
        lanes.set(key, { label, pid, rows: [] });
      }
      lanes.get(key).rows.push(i);
    });
    const group = (i) => {
      const kind = data.k[i];
      if (kind === phase) return data.f[i] ? "failed" : "phase";
      if (kind === repeat) return "phase";
      if (kind === packet) return "packet";
      if (kind === signal) return "failed";
      return data.f[i] ? "failed" : names[data.n[i]];
    };
    const made = [...lanes.values()].filter((lane) => lane.rows.length);
    for (const [label, place] of [["packets", made.length - 1], ["repeats", 1]]) {
      const at = made.findIndex((lane) => lane.label === label);
      if (at >= 0) made.splice(place, 0, ...made.splice(at, 1));
    }
    // Every child process has a 1:test and a hub of its own.
    const labels = made.map(({ label }) => label);
    for (const lane of made) {
      if (labels.indexOf(lane.label) !== labels.lastIndexOf(lane.label)) lane.label += ` (${lane.pid})`;
      lane.rows = Int32Array.from(lane.rows);
      lane.groups = Array.from(lane.rows, group);
      lane.longest = lane.rows.reduce((most, i) => Math.max(most, data.d[i]), 0);
    }
    return { lanes: made, begin, end };
  }

  // The first of a lane's rows that may be seen at or after a time.
  function firstAt(lane, data, time) {
    let low = 0, high = lane.rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (data.t[lane.rows[middle]] < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  class Timeline {
    constructor(canvas, data) {
      this.canvas = canvas;
      this.take(data);
      this.top = 0;
      this.frame = 0;
      this.colours = {};
      this.resize();
      this.fit();
    }

    take(data) {
      this.data = data;
      Object.assign(this, layOut(data));
      this.selected = -1;
      this.order = null;
    }

    get plotWidth() { return Math.max(this.width - LABELS, 50); }

    fit() {
      const room = (this.end - this.begin) * 0.01;
      this.left = this.begin - room;
      this.scale = (this.end - this.begin + 2 * room) / this.plotWidth; // microseconds a pixel
      this.ask();
    }

    zoom(factor, x = LABELS + this.plotWidth / 2) {
      const time = this.timeAt(x);
      const widest = ((this.end - this.begin) * 1.02) / this.plotWidth;
      this.scale = Math.min(Math.max(this.scale * factor, 0.01), widest);
      this.left = time - (x - LABELS) * this.scale;
      this.keepInside();
      this.ask();
    }

    pan(pixels, lines = 0) {
      this.left += pixels * this.scale;
      this.top += lines;
      this.keepInside();
      this.ask();
    }

    keepInside() {
      const shown = this.plotWidth * this.scale;
      this.left = Math.min(Math.max(this.left, this.begin - shown * 0.02), Math.max(this.end - shown * 0.98, this.begin - shown * 0.02));
      const most = Math.max(this.lanes.length * LANE - (this.height - RULER), 0);
      this.top = Math.min(Math.max(this.top, 0), most);
    }

    show(row) {
      this.selected = row;
      const time = this.data.t[row];
      const lane = this.lanes.findIndex((each) => each.rows.includes(row));
      this.scale = Math.min(this.scale, Math.max((this.end - this.begin) / 50, 2000) / this.plotWidth);
      this.left = time - (this.plotWidth * this.scale) / 2;
      this.top = lane * LANE - this.height / 2;
      this.keepInside();
      this.ask();
    }

    // The event before or after the selected one, on whichever lane, moved into view.
    step(by) {
      const { t } = this.data;
      this.order ||= this.lanes.flatMap(({ rows }) => [...rows]).sort((a, b) => t[a] - t[b]);
      const at = this.selected < 0 ? (by > 0 ? 0 : this.order.length - 1) : this.order.indexOf(this.selected) + by;
      const row = this.order[Math.min(Math.max(at, 0), this.order.length - 1)];
      const shown = this.plotWidth * this.scale;
      if (t[row] < this.left || t[row] > this.left + shown) this.left = t[row] - shown / 2;
      const top = this.lanes.findIndex(({ rows }) => rows.includes(row)) * LANE;
      this.top = Math.min(Math.max(this.top, top + LANE - (this.height - RULER)), top);
      this.keepInside();
      return row;
    }

    timeAt(x) { return this.left + (x - LABELS) * this.scale; }

    resize() {
      const ratio = devicePixelRatio || 1;
      this.width = this.canvas.parentElement.clientWidth;
      this.height = Math.min(this.lanes.length * LANE + RULER + 2, MAX_HEIGHT);
      this.canvas.width = this.width * ratio;
      this.canvas.height = this.height * ratio;
      this.canvas.style.height = `${this.height}px`;
      this.context = this.canvas.getContext("2d");
      this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
      this.readColours();
      if (this.scale) this.ask();
    }

    readColours() {
      const style = getComputedStyle(document.documentElement);
      for (const name of ["text", "dim", "line", "panel", "accent"]) this.colours[name] = style.getPropertyValue(`--${name}`);
      for (const name of [...LEGEND, "phase"]) this.colours[name] = style.getPropertyValue(`--event-${name}`);
    }

    // Many events may ask for a new picture; a frame has one.
    ask() {
      this.frame ||= requestAnimationFrame(() => { this.frame = 0; this.draw(); });
    }

    draw() {
      const { context, width, height, colours } = this;
      context.clearRect(0, 0, width, height);
      context.font = "12px system-ui, sans-serif";
      context.textBaseline = "middle";
      this.drawRuler();
      context.save();
      context.beginPath();
      context.rect(0, RULER, width, height - RULER);
      context.clip();
      const first = Math.floor(this.top / LANE);
      const last = Math.min(this.lanes.length, Math.ceil((this.top + height) / LANE));
      for (let i = first; i < last; i++) this.drawLane(this.lanes[i], RULER + i * LANE - this.top);
      context.restore();
      context.fillStyle = colours.line;
      context.fillRect(LABELS - 1, 0, 1, height);
    }

    drawRuler() {
      const { context, colours } = this;
      const step = niceStep(this.scale * 110);
      context.fillStyle = colours.dim;
      for (let time = Math.ceil(this.left / step) * step; ; time += step) {
        const x = LABELS + (time - this.left) / this.scale;
        if (x > this.width) break;
        context.fillStyle = colours.line;
        context.fillRect(x, 0, 1, this.height);
        context.fillStyle = colours.dim;
        const label = clock(time, step);
        if (x + 4 + context.measureText(label).width < this.width) context.fillText(label, x + 4, RULER / 2);
      }
    }

    drawLane(lane, y) {
      const { context, data, colours, left, scale, width } = this;
      context.fillStyle = colours.line;
      context.fillRect(0, y + LANE - 1, width, 1);
      context.fillStyle = colours.text;
      context.fillText(shortened(lane.label, Math.round((LABELS - 12) / 6.3)), 8, y + LANE / 2);
      const right = left + (width - LABELS) * scale;
      // A pixel is drawn once, and once more for what must not be missed: 100,000 rows cost no more
      // than what can be seen.
      const drawnTo = { failed: -1, packet: -1, any: -1 };
      for (let at = firstAt(lane, data, left - lane.longest); at < lane.rows.length; at++) {
        const i = lane.rows[at];
        const time = data.t[i];
        if (time > right) break;
        const length = Math.max(data.d[i], 0);
        const group = lane.groups[at];
        const from = Math.max(LABELS + (time - left) / scale, LABELS);
        const to = Math.min(LABELS + (time + length - left) / scale, width);
        const kind = group in drawnTo ? group : "any";
        if (to < LABELS || (to <= drawnTo[kind] && i !== this.selected)) continue;
        this.drawEvent(i, group, from, Math.max(to - from, 1), y);
        drawnTo[kind] = Math.ceil(Math.max(to, from + 1));
      }
    }

    drawEvent(i, group, x, length, y) {
      const { context, data, colours } = this;
      context.fillStyle = colours[group] || colours.other;
      if (group === "packet") {
        context.beginPath();
        context.moveTo(x, y + 3);
        context.lineTo(x + POINT, y + LANE / 2);
        context.lineTo(x, y + LANE - 4);
        context.lineTo(x - POINT, y + LANE / 2);
        context.fill();
      } else {
        context.fillRect(x, y + 3, length, LANE - 7);
      }
      if (length > 46) {
        context.fillStyle = readable(context.fillStyle);
        context.fillText(shortened(data.names[data.n[i]], Math.floor(length / 7)), x + 4, y + LANE / 2);
      }
      if (i === this.selected) {
        context.strokeStyle = colours.text;
        context.lineWidth = 2;
        context.strokeRect(x - 1, y + 2, length + 2, LANE - 5);
      }
    }

    // The row at a place of the canvas, or -1. Of several the last one lies on top.
    at(x, y) {
      const lane = this.lanes[Math.floor((y - RULER + this.top) / LANE)];
      if (!lane || x < LABELS || y < RULER) return -1;
      const time = this.timeAt(x), near = POINT * this.scale;
      let found = -1;
      for (let at = firstAt(lane, this.data, time - lane.longest - near); at < lane.rows.length; at++) {
        const i = lane.rows[at];
        if (this.data.t[i] - near > time) break;
        if (this.data.t[i] + Math.max(this.data.d[i], 0) + near >= time) found = i;
      }
      return found;
    }
  }

  // Black or white, whichever stands out more from a colour, which is six hexadecimal digits.
  function readable(colour) {
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
  }

  function niceStep(least) {
    const power = 10 ** Math.floor(Math.log10(least));
    return [1, 2, 5, 10].find((factor) => factor * power >= least) * power;
  }

  function clock(us, step) {
    if (step >= 1e6) return `${(us / 1e6).toFixed(0)} s`;
    if (step >= 1e5) return `${(us / 1e6).toFixed(1)} s`;
    if (step >= 1e3) return `${(us / 1e3).toFixed(0)} ms`;
    return step >= 1 ? `${(us / 1e3).toFixed(3)} ms` : `${us.toFixed(2)} us`;
  }

  function shortened(text, length) {
    return text.length > length ? `${text.slice(0, Math.max(length - 1, 0))}…` : text;
  }

  function describe(data, i) {
    const who = nameOf(data, data.lanes[data.l[i]]);
    const took = data.d[i] >= 0 ? `, took ${(data.d[i] / 1000).toFixed(3)} ms` : "";
    return `${(data.t[i] / 1000).toFixed(3)} ms${took}${who && `, ${who}`}`;
  }

  function show(body, data, place) {
    const canvas = element("canvas", { class: "timeline", tabindex: "0", role: "img" });
    const tip = element("div", { class: "tip", hidden: true });
    const details = element("p", { class: "event-details", "aria-live": "polite" });
    const holder = element("div", { class: "timeline-holder" }, canvas, tip);
    const story = folded(data);
    const switched = data.kinds.indexOf("switch");
    const hidden = story.hidden.filter((each, i) => each && data.k[i] !== switched).length;
    const everything = element("input", { type: "checkbox", onchange: () => {
      timeline.take(everything.checked ? data : story);
      timeline.resize();
      timeline.keepInside();
      select(-1);
      describeCanvas();
    } });
    const button = (label, title, action) => element("button", { type: "button", "aria-label": title, title, onclick: action }, label);
    body.append(element("div", { class: "toolbar small" },
      button("+", "Zoom in", () => timeline.zoom(0.5)),
      button("−", "Zoom out", () => timeline.zoom(2)),
      button("Fit", "Show all", () => timeline.fit()),
      hidden > 0 && element("label", { class: "all", title: "of pytest and of this plugin, of imports, and of the allocator" },
        everything, ` ${hidden.toLocaleString("en")} more ${hidden === 1 ? "call" : "calls"}`),
      element("span", { class: "legend" }, LEGEND.map((name) => element("span", { class: `event-${name}` }, name))),
      element("span", { class: "dim", title: "n and p: the next and the previous event" },
        "Ctrl + wheel zooms, dragging moves; keys: + − arrows n p")),
    holder, details);
    const timeline = new Timeline(canvas, story);
    const describeCanvas = () => {
      const shown = timeline.lanes.reduce((sum, lane) => sum + lane.rows.length, 0);
      canvas.setAttribute("aria-label", `Timeline of ${plural(shown, "event")} on ${plural(timeline.lanes.length, "lane")}; the tables of system calls and packets list them.`);
    };
    describeCanvas();
    canvas.timeline = timeline; // for benchmarks and tests

    const select = (i) => {
      timeline.selected = i;
      timeline.ask();
      details.replaceChildren();
      if (i < 0) return;
      const tab = { packet: "packets", syscall: "calls", signal: "calls", thread: "calls", repeat: "calls" }[timeline.data.kinds[timeline.data.k[i]]];
      details.append(element("code", {}, timeline.data.texts[i]), ` ${describe(timeline.data, i)} `,
        tab && timeline.data.i[i] ? element("a", { href: place.address(tab, timeline.data.i[i]) },
          tab === "calls" ? `trace line ${timeline.data.i[i]}` : `packet ${timeline.data.i[i]}`) : "");
    };
    let dragged = null;
    canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey || event.metaKey) {
        timeline.zoom(Math.exp(event.deltaY * 0.004), event.offsetX);
      } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        timeline.pan(event.deltaX || event.deltaY);
      } else {
        return;
      }
      event.preventDefault();
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      dragged = { x: event.offsetX, y: event.offsetY, moved: false };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (dragged) {
        const x = dragged.x - event.offsetX, y = dragged.y - event.offsetY;
        if (!dragged.moved && Math.abs(x) + Math.abs(y) < 4) return;
        timeline.pan(x, y);
        dragged = { x: event.offsetX, y: event.offsetY, moved: true };
        tip.hidden = true;
        return;
      }
      const i = timeline.at(event.offsetX, event.offsetY);
      tip.hidden = i < 0;
      if (i < 0) return;
      tip.replaceChildren(element("code", {}, shortened(timeline.data.texts[i], 200)), element("div", {}, describe(timeline.data, i)));
      const right = event.offsetX > timeline.width / 2;
      tip.style.left = right ? "" : `${event.offsetX + 14}px`;
      tip.style.right = right ? `${timeline.width - event.offsetX + 14}px` : "";
      tip.style.top = `${event.offsetY + 14}px`;
    });
    canvas.addEventListener("pointerup", (event) => {
      if (dragged && !dragged.moved) select(timeline.at(event.offsetX, event.offsetY));
      dragged = null;
    });
    canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
    canvas.addEventListener("keydown", (event) => {
      const action = {
        "+": () => timeline.zoom(0.5), "=": () => timeline.zoom(0.5), "-": () => timeline.zoom(2),
        ArrowLeft: () => timeline.pan(-60), ArrowRight: () => timeline.pan(60),
        ArrowUp: () => timeline.pan(0, -LANE), ArrowDown: () => timeline.pan(0, LANE), Home: () => timeline.fit(),
        n: () => select(timeline.step(1)), p: () => select(timeline.step(-1)),
      }[event.key];
      if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      action();
    });
    const observer = new ResizeObserver(() => timeline.resize());
    observer.observe(holder);
    const recolour = () => { timeline.readColours(); timeline.ask(); };
    document.addEventListener("themechange", recolour);
    return () => { observer.disconnect(); document.removeEventListener("themechange", recolour); };
  }

  return { show };
})();
