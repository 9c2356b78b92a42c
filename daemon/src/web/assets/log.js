// The log of a task as a list of which only the lines in sight exist: a million lines cost what fifty do. It asks the daemon for
// windows of lines, keeps some, and goes on asking while the log grows. Text of the log becomes text nodes and nothing else.
"use strict";
(() => {
  const log = document.getElementById("log");
  if (!log) return;
  const view = log.querySelector(".log-view");
  const status = log.querySelector("[data-log-status]");
  const count = log.querySelector("[data-log-count]");
  const find = log.querySelector("[data-find]");
  const hitsSaid = log.querySelector("[data-log-hits]");
  const buttons = Object.fromEntries([...log.querySelectorAll("[data-do]")].map((each) => [each.dataset.do, each]));
  const { task, attempt } = log.dataset;
  const api = `/api/v1/tasks/${task}/log`;

  const ROW_PX = 20;
  // Browsers cap the height of an element at some 16 million pixels: above this the scroll bar stands for more than it shows.
  const HEIGHT_PX_MAX = 8_000_000;
  const WINDOW = 500;
  const WINDOWS_KEPT = 60;
  const HITS_MAX = 20_000;
  const GROWS_MS = 400;
  const RESTS_MS = 1500;

  const space = document.createElement("div");
  const rows = document.createElement("div");
  space.className = "log-space";
  rows.className = "log-rows";
  space.append(rows);

  let total = Number(log.dataset.total), complete = false;
  let first = 0; // The line at the top, from 0, with its fraction: the truth, of which the scroll bar is a picture.
  let set = -1; // The scroll position that we set ourselves.
  let follow = false, wraps = false;
  let picked = null; // [from, to], counted from 1.
  let hits = [], hitSet = new Set(), hit = -1, searched = "", searching = 0;
  const windows = new Map(), asked = new Set();

  // Lines -------------------------------------------------------------------------------------------------------------------
  async function ask(path, query) {
    const answer = await fetch(`${api}/${path}?${new URLSearchParams({ attempt, ...query })}`, { headers: { accept: "application/json" } });
    if (!answer.ok) throw new Error(`the daemon answered ${answer.status}`);
    return answer.json();
  }

  function take(page) {
    const grew = page.total > total;
    total = page.total;
    complete = page.complete;
    for (const line of page.items) {
      const at = Math.floor((line.number - 1) / WINDOW);
      let kept = windows.get(at);
      if (!kept) windows.set(at, kept = []);
      kept[(line.number - 1) % WINDOW] = line;
    }
    while (windows.size > WINDOWS_KEPT) windows.delete(windows.keys().next().value);
    return grew;
  }

  async function load(at) {
    if (asked.has(at)) return;
    asked.add(at);
    try {
      take(await ask("lines", { from: at * WINDOW + 1, count: WINDOW }));
    } catch (error) {
      status.textContent = `The log cannot be read: ${error.message}`;
      await new Promise((done) => setTimeout(done, RESTS_MS));
    } finally {
      asked.delete(at);
    }
    draw();
  }

  // What a window holds of a line; a window in use is the last to go.
  function line(index) {
    const at = Math.floor(index / WINDOW);
    const found = windows.get(at)?.[index % WINDOW];
    if (!found) load(at);
    return found;
  }

  // Drawing -----------------------------------------------------------------------------------------------------------------
  const LOOKS = { bold: "sb", dim: "sd", italic: "si", underline: "su", strike: "ss", inverse: "inv", cut: "cut" };
  function dress(node, style) {
    for (const name of style ?? []) {
      const colour = /^([fb])g-([0-9a-f]+)$/.exec(name);
      if (!colour) {
        if (Object.hasOwn(LOOKS, name)) node.classList.add(LOOKS[name]);
        continue;
      }
      const [, kind, value] = colour;
      // Six digits are a colour in hexadecimal; fewer are a number of the palette, whose first sixteen the stylesheet knows.
      if (value.length < 6 && Number(value) < 16) node.classList.add(`${kind}${value}`);
      else node.style[kind === "f" ? "color" : "backgroundColor"] = value.length === 6 ? `#${value}` : ofPalette(Number(value));
    }
  }

  // The cube and the greys of 256 colours.
  function ofPalette(colour) {
    if (colour >= 232) { const grey = 8 + (colour - 232) * 10; return `rgb(${grey} ${grey} ${grey})`; }
    const cube = colour - 16, level = (step) => (step === 0 ? 0 : 55 + step * 40);
    return `rgb(${level(Math.floor(cube / 36))} ${level(Math.floor(cube / 6) % 6)} ${level(cube % 6)})`;
  }

  function rowOf(index) {
    const number = index + 1, found = line(index);
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
    if (hits[hit] === number) row.classList.add("current");
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
    const end = Math.min(total, begin + inSight() + 2);
    const made = [];
    for (let index = begin; index < end; index += 1) made.push(rowOf(index));
    rows.replaceChildren(...made);
    const shift = atEnd ? Math.min(0, view.clientHeight - rows.offsetHeight) : -(first % 1) * ROW_PX;
    rows.style.transform = `translateY(${set + shift}px)`;
    count.textContent = `${total.toLocaleString("en")} ${total === 1 ? "line" : "lines"}`;
    log.dataset.first = String(begin + 1);
    log.dataset.total = String(total);
  }

  // Moving ------------------------------------------------------------------------------------------------------------------
  function setFollow(on) {
    follow = on;
    buttons.follow.setAttribute("aria-pressed", String(on));
    draw();
  }
  function moveTo(index) {
    follow = false;
    buttons.follow.setAttribute("aria-pressed", "false");
    first = index;
    draw();
  }
  const moveBy = (lines) => moveTo(Math.min(lastFirst(), Math.max(0, first + lines)));
  const show = (number) => moveTo(Math.max(0, number - 1 - Math.floor(inSight() / 3)));

  view.addEventListener("scroll", () => {
    if (Math.abs(view.scrollTop - set) < 1) return;
    set = view.scrollTop;
    follow = false;
    buttons.follow.setAttribute("aria-pressed", "false");
    first = room() === 0 ? 0 : (view.scrollTop / room()) * lastFirst();
    draw();
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
    const page = inSight() - 1;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, " ": page, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    moveBy(steps[event.key]);
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
  rows.addEventListener("click", (event) => {
    const link = event.target.closest("a.no");
    if (!link || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const number = Number(link.dataset.line);
    const from = event.shiftKey && picked ? picked[0] : number;
    picked = [Math.min(from, number), Math.max(from, number)];
    const range = picked[0] === picked[1] ? `#L${number}` : `#L${picked[0]}-L${picked[1]}`;
    history.replaceState(null, "", `?attempt=${attempt}${range}`);
    draw();
  });
  addEventListener("hashchange", readHash);

  // Searching ---------------------------------------------------------------------------------------------------------------
  // In steps: the daemon bounds what one answer costs, and says where to go on.
  async function search(query, each) {
    const mine = ++searching;
    let from = 1;
    while (from && mine === searching) {
      const page = await ask("search", { ...query, from, limit: 1000 });
      if (mine !== searching) return false;
      if (each(page.items.map((item) => item.number)) === false) return true;
      from = page.next_from;
    }
    return mine === searching;
  }

  function tellHits(done) {
    const more = hits.length >= HITS_MAX ? "+" : done ? "" : "…";
    hitsSaid.textContent = hits.length === 0 ? (done ? "no hit" : "searching…")
      : `${(hit + 1).toLocaleString("en")} of ${hits.length.toLocaleString("en")}${more}`;
    buttons.previous.hidden = buttons.next.hidden = hits.length === 0;
  }

  async function startSearch(query, name) {
    searched = name;
    hits = [];
    hitSet = new Set();
    hit = -1;
    tellHits(false);
    const from = Math.floor(first) + 1;
    try {
      const done = await search(query, (found) => {
        for (const number of found) { hits.push(number); hitSet.add(number); }
        if (hit < 0 && hits.length > 0 && (query.text || hits[hits.length - 1] >= from)) {
          const at = hits.findIndex((number) => number >= from);
          go(at < 0 ? 0 : at);
        }
        tellHits(false);
        return hits.length < HITS_MAX;
      });
      if (!done) return;
      if (hit < 0 && hits.length > 0) go(0);
      tellHits(true);
    } catch (error) {
      status.textContent = `The search failed: ${error.message}`;
    }
    draw();
  }

  function go(at) {
    if (hits.length === 0) return;
    hit = (at + hits.length) % hits.length;
    show(hits[hit]);
    tellHits(true);
  }
  function stopSearch() {
    searching += 1;
    searched = "";
    hits = [];
    hitSet = new Set();
    hit = -1;
    hitsSaid.textContent = "";
    buttons.previous.hidden = buttons.next.hidden = true;
    draw();
  }

  find.form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = find.value;
    if (text === "") stopSearch();
    else if (searched === `text ${text}` && hits.length > 0) go(hit + 1);
    else startSearch({ text }, `text ${text}`);
  });
  find.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { find.value = ""; stopSearch(); view.focus(); }
    if (event.key === "Enter" && event.shiftKey) { event.preventDefault(); go(hit - 1); }
  });
  buttons.next.addEventListener("click", () => go(hit + 1));
  buttons.previous.addEventListener("click", () => go(hit - 1));
  buttons.error.addEventListener("click", () => {
    if (searched === "errors" && hits.length > 0) go(hit + 1);
    else { find.value = ""; startSearch({ errors: "true" }, "errors"); }
  });
  buttons.follow.addEventListener("click", () => setFollow(!follow));
  buttons.wrap.addEventListener("click", () => {
    wraps = !wraps;
    buttons.wrap.setAttribute("aria-pressed", String(wraps));
    view.classList.toggle("log-wraps", wraps);
    draw();
  });

  // Growing -----------------------------------------------------------------------------------------------------------------
  async function grow() {
    let wait = RESTS_MS;
    if (!document.hidden) {
      try {
        const from = Math.max(1, total);
        if (take(await ask("lines", { from, count: WINDOW }))) wait = GROWS_MS;
        status.textContent = complete ? "complete" : "live";
      } catch { status.textContent = "the daemon is away; trying again"; }
      draw();
    }
    if (!complete) setTimeout(grow, wait);
  }

  for (const each of log.querySelectorAll("[data-script]")) each.hidden = false;
  buttons.previous.hidden = buttons.next.hidden = true;
  view.replaceChildren(space);
  if (!readHash()) setFollow(log.dataset.open === "yes");
  draw();
  grow();
})();
