// The log of a task as a list of which only the lines in sight exist: a million lines cost what fifty do. It asks the daemon for
// lines, keeps some, and goes on asking while the log grows. Text of the log becomes text nodes and nothing else.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const log = byId("log");
  if (!log) return;
  const view = log.querySelector(".log-view");
  const status = log.querySelector("[data-log-status]");
  const count = log.querySelector("[data-log-count]");
  const size = log.querySelector("[data-log-bytes]");
  const none = log.querySelector("[data-log-none]");
  const find = log.querySelector("[data-find]");
  const hitsSaid = log.querySelector("[data-log-hits]");
  const download = log.querySelector("[download]");
  const buttons = Object.fromEntries([...log.querySelectorAll("[data-do]")].map((each) => [each.dataset.do, each]));
  const { task } = log.dataset;
  const api = `/api/v1/tasks/${task}/log`;

  const ROW_PX = 20;
  // Browsers cap the height of an element at some 16 million pixels: above this the scroll bar stands for more than it shows.
  const HEIGHT_PX_MAX = 8_000_000;
  const WINDOW = 500;
  const WINDOWS_KEPT = 60;
  const CHARACTERS_KEPT = 24_000_000;
  // So many lines before those in sight come with them.
  const BEFORE = 100;
  const HITS_MAX = 20_000;
  const GROWS_MS = 400;
  const RESTS_MS = 1500;

  const space = document.createElement("div");
  const rows = document.createElement("div");
  space.className = "log-space";
  rows.className = "log-rows";
  space.append(rows);

  let attempt = Number(log.dataset.attempt); // Whose log it is; 0 before the first.
  let total = Number(log.dataset.total), complete = false;
  let first = 0; // The line at the top, from 0, with its fraction: the truth, of which the scroll bar is a picture.
  let sight = [0, 0]; // What is drawn, from 0: from the first to before the second.
  let set = -1; // The scroll position that we set ourselves.
  let follow = false, wraps = false;
  let picked = null; // [from, to], counted from 1.
  let cursor = -1; // The line that the arrow keys chose, from 0.

  // Lines -------------------------------------------------------------------------------------------------------------------
  const windows = new Map(); // By number: the lines, and how many characters they have. Those that came last stand last.
  let characters = 0, unended = 0;

  async function ask(path, query) {
    const answer = await fetch(`${api}/${path}?${new URLSearchParams({ attempt, ...query })}`, { headers: { accept: "application/json" } });
    if (!answer.ok) throw new Error(`the daemon answered ${answer.status}`);
    return answer.json();
  }

  const known = (index) => windows.get(Math.floor(index / WINDOW))?.lines[index % WINDOW];
  const lengthOf = (line) => line.segments.reduce((sum, { text }) => sum + text.length, 40);

  function keep(index, line) {
    const at = Math.floor(index / WINDOW);
    const kept = windows.get(at) ?? { lines: [], characters: 0 };
    windows.delete(at);
    windows.set(at, kept);
    const before = kept.lines[index % WINDOW];
    const more = (line ? lengthOf(line) : 0) - (before ? lengthOf(before) : 0);
    kept.lines[index % WINDOW] = line;
    kept.characters += more;
    characters += more;
  }

  function forget() {
    for (const [at, kept] of windows) {
      if (windows.size <= WINDOWS_KEPT && characters <= CHARACTERS_KEPT) return;
      if ((at + 1) * WINDOW > sight[0] && at * WINDOW < sight[1]) continue;
      windows.delete(at);
      characters -= kept.characters;
    }
  }

  function take(page) {
    const grew = page.total > total;
    if (page.total < total) { windows.clear(); characters = 0; unended = 0; }
    // A line that had not ended when it came may have gone on.
    if (grew && unended > 0) { keep(unended - 1, undefined); unended = 0; }
    ({ total, complete } = page);
    for (const line of page.items) keep(line.number - 1, line);
    if (!complete && page.items.at(-1)?.number === total) unended = total;
    forget();
    size.textContent = bytes(page.bytes);
    return grew;
  }

  function bytes(number) {
    const units = ["B", "KiB", "MiB", "GiB"];
    let unit = 0;
    for (; number >= 1024 && unit < units.length - 1; unit += 1) number /= 1024;
    return `${unit > 0 && number < 100 ? number.toFixed(1) : Math.floor(number)} ${units[unit]}`;
  }

  function missing() {
    for (let index = sight[0]; index < Math.min(sight[1], total); index += 1) if (!known(index)) return index;
    return -1;
  }

  // What is to be asked for so that a line is there: it, some before it, and what follows up to the next that is there.
  function gap(index) {
    let from = index, to = index + 1;
    while (from > 0 && index - from < BEFORE && !known(from - 1)) from -= 1;
    while (to < total && to - from < WINDOW && !known(to)) to += 1;
    return { from: from + 1, count: to - from };
  }

  // One request at a time, until what is in sight is there. An answer may hold fewer lines than asked for, where they are long.
  let loading = false;
  async function load() {
    if (loading) return;
    loading = true;
    for (let index = missing(); index >= 0; index = missing()) {
      const of = attempt, wanted = gap(index);
      let came = false;
      try {
        const page = await ask("lines", wanted);
        if (of === attempt) take(page);
        came = of !== attempt || Boolean(known(wanted.from - 1)) || total < wanted.from;
      } catch (error) {
        status.textContent = `The log cannot be read: ${error.message}`;
      }
      draw();
      if (!came) await new Promise((done) => setTimeout(done, RESTS_MS));
    }
    loading = false;
  }

  // Drawing -----------------------------------------------------------------------------------------------------------------
  const LOOKS = { bold: "sb", dim: "sd", italic: "si", underline: "su", strike: "ss", inverse: "inv", cut: "cut" };
  function dress(node, style) {
    let ground = null, coloured = false;
    for (const name of style ?? []) {
      const colour = /^([fb])g-([0-9a-f]+)$/.exec(name);
      if (!colour) {
        if (Object.hasOwn(LOOKS, name)) node.classList.add(LOOKS[name]);
        continue;
      }
      const [, kind, value] = colour;
      if (kind === "f") coloured = true;
      // Six digits are a colour in hexadecimal; fewer are a number of the palette, whose first sixteen the stylesheet knows.
      if (value.length < 6 && Number(value) < 16) { node.classList.add(`${kind}${value}`); continue; }
      const parts = value.length === 6 ? [0, 2, 4].map((at) => parseInt(value.slice(at, at + 2), 16)) : ofPalette(Number(value));
      node.style[kind === "f" ? "color" : "backgroundColor"] = `rgb(${parts.join(" ")})`;
      if (kind === "b") ground = parts;
    }
    // Text without a colour is read on whatever lies behind it.
    if (ground && !coloured) node.style.color = ground[0] * 0.299 + ground[1] * 0.587 + ground[2] * 0.114 > 120 ? "#000000" : "#ffffff";
  }

  // The cube and the greys of 256 colours.
  function ofPalette(colour) {
    if (colour >= 232) { const grey = 8 + (colour - 232) * 10; return [grey, grey, grey]; }
    const cube = colour - 16, level = (step) => (step === 0 ? 0 : 55 + step * 40);
    return [level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6)];
  }

  function rowOf(index) {
    const number = index + 1, found = known(index);
    const row = document.createElement("div");
    row.className = "row";
    const no = document.createElement("a");
    no.className = "no";
    no.href = `?attempt=${attempt}#L${number}`;
    no.tabIndex = -1;
    no.dataset.line = number;
    no.textContent = number;
    const say = document.createElement("span");
    say.className = "say";
    if (!found) say.textContent = "…";
    for (const { text, style } of found?.segments ?? []) {
      const part = document.createElement("span");
      part.textContent = text;
      dress(part, style);
      say.append(part);
    }
    if (picked && number >= picked[0] && number <= picked[1]) row.classList.add("picked");
    if (hitSet.has(number)) row.classList.add("hit");
    if (current === number) row.classList.add("current");
    if (cursor === index) row.classList.add("cursor");
    row.append(no, say);
    return row;
  }

  const inSight = () => Math.max(1, Math.floor(view.clientHeight / ROW_PX));
  const lastFirst = () => Math.max(0, total - (wraps ? 1 : inSight()));
  const room = () => Math.max(0, space.offsetHeight - view.clientHeight);

  let drawing = false;
  function draw() {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => { drawing = false; drawNow(); });
  }

  function drawNow() {
    const height = Math.min(total * ROW_PX + (wraps ? view.clientHeight - ROW_PX : 0), HEIGHT_PX_MAX);
    space.style.height = `${Math.max(height, 1)}px`;
    if (follow) first = lastFirst();
    first = Math.min(Math.max(first, 0), lastFirst());
    const top = lastFirst() === 0 ? 0 : (first / lastFirst()) * room();
    if (Math.abs(view.scrollTop - top) >= 1) view.scrollTop = top;
    set = view.scrollTop;
    const atEnd = wraps && follow;
    const begin = atEnd ? Math.max(0, total - inSight() - 1) : Math.floor(first);
    sight = [begin, Math.min(total, begin + inSight() + 2)];
    const made = [];
    for (let index = begin; index < sight[1]; index += 1) made.push(rowOf(index));
    rows.replaceChildren(...made);
    const shift = atEnd ? Math.min(0, view.clientHeight - rows.offsetHeight) : -(first % 1) * ROW_PX;
    rows.style.transform = `translateY(${set + shift}px)`;
    count.textContent = `${total.toLocaleString("en")} ${total === 1 ? "line" : "lines"}`;
    none.hidden = total > 0;
    log.dataset.first = String(begin + 1);
    log.dataset.total = String(total);
    load();
  }

  // Moving ------------------------------------------------------------------------------------------------------------------
  function setFollow(on) {
    follow = on;
    buttons.follow.setAttribute("aria-pressed", String(on));
    draw();
  }
  function moveTo(index) {
    first = index;
    setFollow(false);
  }
  const moveBy = (lines) => moveTo(Math.min(lastFirst(), Math.max(0, first + lines)));
  const show = (number) => moveTo(Math.max(0, number - 1 - Math.floor(inSight() / 3)));

  // The arrow keys go from line to line, beginning with what is in sight.
  function moveCursor(by) {
    if (total === 0) return;
    const top = Math.ceil(first), bottom = Math.min(total, Math.floor(first) + inSight()) - 1;
    if (cursor < top || cursor > bottom) cursor = by > 0 ? top : bottom;
    else cursor = Math.min(total - 1, Math.max(0, cursor + by));
    if (wraps || cursor < first) moveTo(cursor);
    else moveTo(cursor > bottom ? cursor - inSight() + 1 : first);
  }

  view.addEventListener("scroll", () => {
    if (Math.abs(view.scrollTop - set) < 1) return;
    set = view.scrollTop;
    moveTo(room() === 0 ? 0 : (view.scrollTop / room()) * lastFirst());
  });
  // A wheel moves lines and not shares of the bar, whatever the bar stands for.
  view.addEventListener("wheel", (event) => {
    if (event.deltaY === 0 || event.shiftKey || event.ctrlKey) return;
    const lines = event.deltaMode === 1 ? event.deltaY : event.deltaY / ROW_PX;
    if ((lines < 0 && first <= 0) || (lines > 0 && first >= lastFirst())) return;
    event.preventDefault();
    moveBy(lines);
  }, { passive: false });
  view.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = inSight() - 1;
    const steps = { PageDown: page, PageUp: -page, " ": page, Home: -Infinity, End: Infinity };
    if (event.key in steps) moveBy(steps[event.key]);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") moveCursor(event.key === "ArrowDown" ? 1 : -1);
    else if (event.key === "Enter" && cursor >= 0) pick(cursor + 1, event.shiftKey ? "range" : "line");
    else return;
    event.preventDefault();
  });
  new ResizeObserver(draw).observe(view);

  // Links to lines ----------------------------------------------------------------------------------------------------------
  function readHash() {
    const found = /^#L(\d+)(?:-L?(\d+))?$/.exec(location.hash);
    if (!found) return false;
    const from = Number(found[1]), to = Number(found[2] ?? found[1]);
    picked = [Math.min(from, to), Math.max(from, to)];
    show(picked[0]);
    return true;
  }
  function pick(number, what) {
    const from = what === "range" && picked ? picked[0] : number;
    picked = [Math.min(from, number), Math.max(from, number)];
    const range = picked[0] === picked[1] ? `#L${number}` : `#L${picked[0]}-L${picked[1]}`;
    history.replaceState(null, "", `?attempt=${attempt}${range}`);
    byId("announce").textContent = `The address leads to ${range.slice(1)}`;
    draw();
  }
  rows.addEventListener("click", (event) => {
    const link = event.target.closest("a.no");
    if (!link || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    pick(Number(link.dataset.line), event.shiftKey ? "range" : "line");
  });
  addEventListener("hashchange", readHash);

  // Searching ---------------------------------------------------------------------------------------------------------------
  let query = null, searching = 0;
  let hits = [], hitSet = new Set(), current = 0; // Lines, counted from 1; the current one is where the last step led.
  let searchedTo = 1, searchedAll = false; // The line to search on from; whether no line can come that was not searched.

  function tellHits(done) {
    const more = hits.length >= HITS_MAX ? "+" : done ? "" : "…";
    hitsSaid.textContent = hits.length === 0 ? (done ? "no hit" : "searching…")
      : `${(hits.indexOf(current) + 1).toLocaleString("en")} of ${hits.length.toLocaleString("en")}${more}`;
    buttons.previous.hidden = buttons.next.hidden = hits.length === 0;
  }

  // The nearest hit after a line, or before it.
  const beyond = (from, by) => (by > 0 ? hits.find((number) => number > from) : hits.findLast((number) => number < from));

  function go(number) {
    if (number === undefined) return false;
    current = number;
    show(number);
    return true;
  }

  // To the next hit from what is in sight, or the one before it; at the end it begins anew. What came since is searched first. In
  // steps: the daemon bounds what one answer costs, and says where to go on.
  async function step(by) {
    if (!query) return;
    const mine = ++searching;
    const top = Math.floor(first), bottom = top + inSight();
    const from = current > top && current <= bottom ? current : by > 0 ? top : bottom + 1;
    let shown = go(beyond(from, by));
    try {
      for (let goesOn = attempt > 0 && !searchedAll; goesOn && hits.length < HITS_MAX;) {
        tellHits(false);
        const before = total, ended = complete;
        const page = await ask("search", { ...query, from: searchedTo, limit: 1000 });
        if (mine !== searching) return;
        for (const { number } of page.items) if (!hitSet.has(number)) { hits.push(number); hitSet.add(number); }
        hits.sort((one, other) => one - other);
        goesOn = Boolean(page.next_from);
        // The last line may not have ended.
        searchedTo = page.next_from || Math.max(1, before);
        searchedAll = !goesOn && ended;
        if (by > 0) shown ||= go(beyond(from, by));
      }
      shown ||= go(beyond(from, by)) || go(by > 0 ? hits[0] : hits.at(-1));
      tellHits(true);
    } catch (error) {
      if (mine === searching) status.textContent = `The search failed: ${error.message}`;
    }
    draw();
  }

  function stopSearch() {
    searching += 1;
    query = null;
    hits = [];
    hitSet = new Set();
    current = 0;
    searchedTo = 1;
    searchedAll = false;
    hitsSaid.textContent = "";
    buttons.previous.hidden = buttons.next.hidden = true;
    draw();
  }
  // One search goes on; another begins.
  function search(wanted) {
    if (JSON.stringify(wanted) !== JSON.stringify(query)) { stopSearch(); query = wanted; }
    step(1);
  }

  find.form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (find.value === "") stopSearch(); else search({ text: find.value });
  });
  find.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { find.value = ""; stopSearch(); view.focus(); }
    if (event.key === "Enter" && event.shiftKey) { event.preventDefault(); step(-1); }
  });
  buttons.next.addEventListener("click", () => step(1));
  buttons.previous.addEventListener("click", () => step(-1));
  buttons.error.addEventListener("click", () => { find.value = ""; search({ errors: "true" }); });
  buttons.follow.addEventListener("click", () => setFollow(!follow));
  buttons.wrap.addEventListener("click", () => {
    wraps = !wraps;
    buttons.wrap.setAttribute("aria-pressed", String(wraps));
    view.classList.toggle("log-wraps", wraps);
    draw();
  });

  // Growing -----------------------------------------------------------------------------------------------------------------
  async function grow(of) {
    let wait = RESTS_MS;
    if (!document.hidden) {
      try {
        const page = await ask("lines", { from: Math.max(1, total), count: WINDOW });
        if (of !== attempt) return;
        if (take(page)) wait = GROWS_MS;
        none.textContent = complete ? "Nothing was written." : "Nothing is written yet.";
        status.textContent = complete ? "complete" : "live";
      } catch {
        if (of === attempt) status.textContent = "the daemon is away; trying again";
      }
      draw();
    }
    if (of === attempt && !complete) setTimeout(() => { if (of === attempt) grow(of); }, wait);
  }

  // Another attempt's log takes this one's place, unless the address names whose it is.
  function turnToNewest() {
    const newest = Number(byId("newest-attempt").textContent);
    if (newest <= attempt || new URLSearchParams(location.search).has("attempt")) return;
    attempt = newest;
    windows.clear();
    characters = unended = total = first = 0;
    complete = false;
    picked = null;
    cursor = -1;
    stopSearch();
    log.dataset.attempt = String(attempt);
    byId("log-title").textContent = attempt > 1 ? `Log of attempt ${attempt}` : "Log";
    download.href = `${api}?attempt=${attempt}`;
    download.download = `task-${task}-${attempt}.log`;
    download.hidden = false;
    setFollow(true);
    grow(attempt);
  }
  document.addEventListener("forge-fresh", turnToNewest);

  for (const each of log.querySelectorAll("[data-script]")) each.hidden = false;
  buttons.previous.hidden = buttons.next.hidden = true;
  view.replaceChildren(space, none);
  if (!readHash()) setFollow(log.dataset.open === "yes");
  draw();
  if (attempt > 0) grow(attempt);
  turnToNewest();
})();
