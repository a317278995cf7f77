"use strict";
// Shows what live.js (beside this file) says, again every 5 s. A page of file:// may not fetch, so live.js is loaded as
// a script that calls lockfs(figures). Text becomes text nodes and nothing else; the one exception are the charts, which
// the daemon has drawn and escaped. Nodes are kept and changed in place, so scroll, selection and focus stay.
(() => {
  const PAUSE_MS = 5000, LATE_MS = 12000;
  const policy = window.trustedTypes ? trustedTypes.createPolicy("lockfs", {
    createHTML: (svg) => svg,
    createScriptURL: (url) => { if (/^live\.js\?\d+$/.test(url)) return url; throw new TypeError(url); },
  }) : { createHTML: (svg) => svg, createScriptURL: (url) => url };
  const $ = (id) => document.getElementById(id);
  const open = new Set();
  let heard = 0, shown = null;

  // ---- small hands

  function make(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }
  // Characters that turn the direction of text around are shown as such: a name must not look like another.
  function say(node, text) {
    const seen = text.replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
    if (node.textContent !== seen) node.textContent = seen;
  }
  function toggle(node, hidden) { if (node.hidden !== hidden) node.hidden = hidden; }

  // Makes the children of `parent` those of `items`, in their order, one node for each key: kept, changed, made, removed.
  // A node that stays in its order is not moved, for a moved node loses focus and selection.
  function keyed(parent, items, key, fresh, change) {
    const wanted = new Set(items.map(key));
    for (const node of [...parent.children]) if (!wanted.has(node.dataset.key)) node.remove();
    const old = new Map([...parent.children].map((node) => [node.dataset.key, node]));
    let next = parent.firstElementChild;
    for (const item of items) {
      let node = old.get(key(item));
      if (!node) { node = fresh(item); node.dataset.key = key(item); }
      if (node === next) next = next.nextElementSibling; else parent.insertBefore(node, next);
      change(node, item);
    }
  }
  // Rows of plain cells, by position.
  function rows(body, table, number) {
    keyed(body, table.map((cells, index) => ({ cells, index })), (row) => String(row.index), (row) => {
      const line = make("tr");
      row.cells.forEach((_, column) => {
        const cell = make(column ? "td" : "th", number(column) ? "number" : "");
        if (!column) cell.scope = "row";
        line.append(cell);
      });
      return line;
    }, (line, row) => row.cells.forEach((text, column) => say(line.children[column], text)));
  }
  function age(ms) {
    const s = Math.floor(ms / 1000), two = (n) => String(n).padStart(2, "0");
    if (s < 10) return (Math.floor(ms / 100) / 10) + "s";
    if (s < 60) return s + "s";
    if (s < 3600) return Math.floor(s / 60) + "m" + two(s % 60) + "s";
    if (s < 86400) return Math.floor(s / 3600) + "h" + two(Math.floor(s / 60) % 60) + "m";
    return Math.floor(s / 86400) + "d" + two(Math.floor(s / 3600) % 24) + "h";
  }
  const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });
  const many = (n, one, more) => n + " " + (n === 1 ? one : more);
  const process = (pid) => pid ? String(pid) : "unseen";

  // ---- the parts of the page

  function tiles(data) {
    keyed($("tiles"), data.tiles, (tile) => tile.name, (tile) => {
      const box = make("div");
      box.append(make("dt", "", tile.name), make("dd"));
      return box;
    }, (box, tile) => {
      say(box.lastChild, tile.value);
      const tone = tile.tone || "";
      if (box.className !== tone) box.className = tone;
    });
  }
  function alerts(data) {
    toggle($("alerts"), data.alerts.length === 0);
    keyed($("alert-list"), data.alerts, (alert) => alert.kind + " " + alert.since, (alert) => {
      const line = make("li");
      line.append(make("span"), make("time"));
      return line;
    }, (line, alert) => {
      say(line.firstChild, alert.sentence);
      say(line.lastChild, alert.since === null ? "" : "since " + clock(alert.since * 1000));
    });
  }
  function lockRow(lock) {
    const group = make("tr", "lock"), head = make("th"), button = make("button");
    head.scope = "row";
    button.type = "button";
    button.append(make("bdi", "name"));
    button.addEventListener("click", () => {
      if (!open.delete(lock.name)) open.add(lock.name);
      if (shown) locks(shown);
    });
    head.append(button);
    group.append(head, make("td"), make("td"), make("td"), make("td", "number"), make("td", "number"));
    return group;
  }
  function fillLock(row, lock) {
    const [, mode, who, op, held, waiting] = row.children, button = row.querySelector("button");
    say(button.firstChild, lock.name);
    button.setAttribute("aria-expanded", String(open.has(lock.name)));
    row.classList.toggle("free", !lock.holders.length && !lock.waiters.length);
    const first = lock.holders[0], others = lock.holders_total - 1;
    say(mode, lock.mode || "–");
    say(who, first ? process(first.pid) + (first.session ? " · " + first.session : "") + (others > 0 ? " and " + others + " more" : "") : lock.waiters.length ? "nobody" : "free");
    say(op, first && first.op || "–");
    say(held, first ? age(first.held_ms) : "–");
    if (lock.waiters_total) {
      if (!waiting.firstElementChild) waiting.replaceChildren(make("span", "pill"));
      say(waiting.firstChild, String(lock.waiters_total));
    } else say(waiting, "–");
  }
  const HOLDERS = ["PID", "Session", "Mode", "Held", "For", "Token", "Operation"];
  const WAITERS = ["Place", "PID", "Session", "Mode", "Priority", "Waits", "About to go", "Limit", "Operation", "Ticket"];
  function part(title, columns) {
    const box = make("div"), table = make("table"), head = make("tr"), body = make("tbody"), top = make("thead");
    columns.forEach((name) => { const cell = make("th", "", name); cell.scope = "col"; head.append(cell); });
    top.append(head);
    table.append(make("caption", "hidden", title), top, body);
    box.append(make("h3", "", title), table, make("p", "muted"));
    return box;
  }
  function detailRow() {
    const row = make("tr", "detail"), cell = make("td", "parts");
    cell.colSpan = 6;
    cell.append(part("Holders", HOLDERS), part("Waiters, first in line first", WAITERS));
    row.append(cell);
    return row;
  }
  function fillDetail(row, lock) {
    const none = () => false, dash = (text) => text === null || text === undefined || text === "" ? "–" : String(text);
    const [holders, waiters] = row.firstChild.children;
    const fill = (box, table, more) => {
      toggle(box, table.length === 0);
      rows(box.querySelector("tbody"), table, none);
      toggle(box.lastChild, more <= 0);
      say(box.lastChild, "and " + more + " more");
    };
    fill(holders, lock.holders.map((h) => [process(h.pid), dash(h.session), h.mode, h.held, age(h.held_ms), String(h.token), dash(h.op)]),
      lock.holders_total - lock.holders.length);
    fill(waiters, lock.waiters.map((w) => [String(w.position), process(w.pid), dash(w.session), w.mode,
      w.effective_priority === w.priority ? String(w.priority) : w.priority + " → " + w.effective_priority,
      age(w.waited_ms), w.estimated_wait_ms === null ? "–" : age(w.estimated_wait_ms),
      w.limit_ms === null ? "none" : age(w.limit_ms), dash(w.op), dash(w.ticket)]), lock.waiters_total - lock.waiters.length);
  }
  function locks(data) {
    const wanted = $("filter").value.trim().toLowerCase();
    const here = new Map(data.locks.map((lock) => [lock.name, lock]));
    // A lock that somebody looks at stays when it is released.
    for (const name of open) if (!here.has(name)) {
      here.set(name, { name, mode: null, holders: [], waiters: [], holders_total: 0, waiters_total: 0 });
    }
    const order = [...here.values()].sort((a, b) => a.name < b.name ? -1 : 1)
      .filter((lock) => !wanted || [lock.name, ...lock.holders.flatMap((h) => [h.session, h.op, String(h.pid)])]
        .some((text) => text && text.toLowerCase().includes(wanted)));
    const lines = order.flatMap((lock) => open.has(lock.name) ? [{ lock }, { lock, detail: true }] : [{ lock }]);
    keyed($("lock-rows"), lines, (line) => (line.detail ? "detail " : "lock ") + line.lock.name,
      (line) => line.detail ? detailRow() : lockRow(line.lock),
      (row, line) => line.detail ? fillDetail(row, line.lock) : fillLock(row, line.lock));
    toggle($("lock-none"), order.length > 0);
    say($("lock-none"), wanted ? "No lock matches." : "No lock is taken.");
    toggle($("lock-table").tHead, order.length === 0);
    const waiting = data.waiters_total ? ", " + many(data.waiters_total, "waiter", "waiters") : "";
    say($("lock-count"), data.locks_total ? data.locks_total + " in use" + waiting : "");
    const more = data.locks_total - data.locks.length;
    toggle($("lock-more"), more <= 0);
    say($("lock-more"), "and " + more + " more: see locks.json");
  }
  function charts(data) {
    keyed($("charts"), data.charts, (chart) => chart.file, (chart) => {
      const box = make("figure", "card"), words = make("figcaption", "", chart.title), table = make("table");
      const details = make("details"), scroll = make("div", "scroll"), head = make("tr"), top = make("thead");
      words.append(make("p", "", chart.description));
      chart.table.head.forEach((name, column) => {
        const cell = make("th", column ? "number" : "", name);
        cell.scope = "col";
        head.append(cell);
      });
      top.append(head);
      table.append(make("caption", "hidden", chart.title), top, make("tbody"));
      scroll.append(table);
      scroll.tabIndex = 0;
      details.append(make("summary", "", "As a table"), scroll);
      box.append(words, make("div", "picture"), details);
      return box;
    }, (box, chart) => {
      if (box.lockfsPicture !== chart.svg) {
        box.lockfsPicture = chart.svg;
        const svg = new DOMParser().parseFromString(policy.createHTML(chart.svg), "image/svg+xml").documentElement;
        if (svg.localName === "svg") box.querySelector(".picture").replaceChildren(document.importNode(svg, true));
      }
      rows(box.querySelector("tbody"), chart.table.rows, (column) => column > 0);
    });
  }
  function show(data) {
    shown = data;
    tiles(data);
    alerts(data);
    locks(data);
    rows($("windows").tBodies[0], data.windows, (column) => column > 0);
    // Pushed figures come without charts that have not changed.
    if (data.charts) charts(data);
    heard = performance.now();
    tell();
  }

  // ---- the news, and how old they are

  function tell() {
    const news = $("news"), since = performance.now() - heard;
    if (!shown) return;
    const late = since > LATE_MS;
    news.classList.toggle("late", late);
    news.classList.toggle("live", !late);
    const notice = shown.drained ? " · drained: nothing new is granted" : "";
    say($("news-text"), late
      ? "No news since " + clock(shown.time_ms) + ": the daemon may have ended."
      : "Live" + notice);
  }
  let asked = 0;
  function ask() {
    const script = document.createElement("script");
    script.src = policy.createScriptURL("live.js?" + ++asked);
    script.onload = script.onerror = () => script.remove();
    document.head.append(script);
  }
  window.lockfs = (data) => {
    if (data.version !== 1) { say($("news-text"), "The daemon speaks another version: load this page anew."); return; }
    show(data);
  };
  setInterval(tell, 1000);
  if (location.protocol === "file:") {
    say($("place"), decodeURIComponent(location.pathname).replace(/\/metrics\/dashboard\.html$/, ""));
    ask();
    setInterval(ask, PAUSE_MS);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  } else {
    say($("place"), location.host);
    new EventSource("events").onmessage = (event) => window.lockfs(JSON.parse(event.data));
  }

  $("filter").addEventListener("input", () => { if (shown) locks(shown); });
  document.addEventListener("keydown", (event) => {
    if (event.target === $("filter")) {
      if (event.key === "Escape") { $("filter").value = ""; if (shown) locks(shown); $("locks").focus(); }
    } else if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      $("filter").focus();
    }
  });
})();
