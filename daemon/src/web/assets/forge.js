// What the dashboard does beyond what the pages do by themselves: fresh contents, relative times, copying, hints on charts and keys.
// Everything here only adds: without it each page still reads and each form still posts. Data becomes text, never markup.
"use strict";
(() => {
  const REFRESH_MS_MIN = 700;
  const POLL_MS = 5000;
  const TICK_MS = 10000;
  const COPIED_MS = 2000;
  const byId = (id) => document.getElementById(id);

  // A form that came back with its mistakes stands at an address that only takes forms: loading it again, or asking it for fresh contents,
  // is meant for the page that has the form.
  const form = /^(\/projects\/[^/]+\/templates\/[^/]+)\/run$/.exec(location.pathname);
  if (form) history.replaceState(null, "", form[1]);

  // Times -------------------------------------------------------------------------------------------------------------------
  // The two largest units, in the words that the server uses.
  function span(seconds) {
    const whole = Math.max(0, Math.floor(seconds));
    const minutes = Math.floor(whole / 60), hours = Math.floor(whole / 3600), days = Math.floor(whole / 86400);
    if (days > 0) return `${days} d ${hours % 24} h`;
    if (hours > 0) return `${hours} h ${minutes % 60} min`;
    if (minutes > 0) return `${minutes} min ${whole % 60} s`;
    return `${whole} s`;
  }

  // How far this machine's clock is from the daemon's: the page says when it was made.
  const made = Date.parse(document.body.dataset.now || "");
  const ahead = Number.isNaN(made) ? 0 : Date.now() - made;

  function tellTimes(root) {
    const now = Date.now() - ahead;
    for (const time of root.querySelectorAll("time[data-ago]")) {
      const seconds = (now - Date.parse(time.dateTime)) / 1000;
      time.textContent = seconds < 0 ? `in ${span(-seconds)}` : `${span(seconds)} ago`;
    }
    for (const time of root.querySelectorAll("[data-since]")) {
      time.textContent = span((now - Date.parse(time.dataset.since)) / 1000);
    }
  }

  // Copying -----------------------------------------------------------------------------------------------------------------
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    const source = byId(button.dataset.copy);
    if (!source) return;
    try {
      await navigator.clipboard.writeText(source.innerText);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, COPIED_MS);
  });

  function enhance(root) {
    tellTimes(root);
    for (const hidden of root.querySelectorAll("[data-script]")) hidden.hidden = false;
  }

  // Hints on charts ---------------------------------------------------------------------------------------------------------
  let tip = null;
  function showTip(target, x, y) {
    if (!tip) {
      tip = document.createElement("div");
      tip.className = "tip";
      tip.setAttribute("aria-hidden", "true");
      document.body.append(tip);
    }
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    tip.style.left = `${Math.min(x + 12, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.max(8, y - tip.offsetHeight - 10)}px`;
  }
  const hideTip = () => { if (tip) tip.hidden = true; };
  document.addEventListener("pointermove", (event) => {
    const target = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
    if (target) showTip(target, event.clientX, event.clientY); else hideTip();
  });
  document.addEventListener("focusin", (event) => {
    const target = event.target.closest("[data-tip]");
    if (!target) return hideTip();
    const box = target.getBoundingClientRect();
    showTip(target, box.right, box.top);
  });

  // A form is sent once -----------------------------------------------------------------------------------------------------
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post") return;
    if (form.dataset.sent) return event.preventDefault();
    form.dataset.sent = "yes";
  });
  addEventListener("pageshow", () => { for (const form of document.forms) delete form.dataset.sent; });

  // Keys --------------------------------------------------------------------------------------------------------------------
  let leader = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
    if (event.key === "/") {
      const find = document.querySelector("[data-find]");
      if (find) { event.preventDefault(); find.focus(); }
    } else if (leader) {
      leader = false;
      const link = [...document.querySelectorAll("[data-key]")].find((each) => each.dataset.key === event.key);
      if (link) link.click();
    } else if (event.key === "g") {
      leader = true;
      setTimeout(() => { leader = false; }, 1500);
    }
  });

  // Fresh contents ----------------------------------------------------------------------------------------------------------
  // Whatever the daemon tells of, the page is asked for again, and the parts that may change are taken from it.
  let busy = false, again = false, last = 0, timer = null;

  function adopt(fresh) {
    for (const part of document.querySelectorAll("[data-live]")) {
      const newer = fresh.getElementById(part.id);
      if (!newer || part.dataset.made === newer.innerHTML) continue;
      const held = document.activeElement;
      // Who is typing or choosing is left alone until the next time.
      if (part.contains(held) && held.matches("input, textarea, select")) continue;
      if (part.contains(held) && !held.id && held.matches("summary")) continue;
      const open = [...part.querySelectorAll("details[open][id]")].map((each) => each.id);
      const said = part.dataset.made;
      part.dataset.made = newer.innerHTML;
      if (said === undefined && part.innerHTML === newer.innerHTML) continue;
      const word = (root) => root.querySelector("[data-announce]")?.textContent.trim();
      const before = word(part), focused = part.contains(held) ? held.id : "";
      part.replaceChildren(...[...newer.childNodes].map((node) => document.importNode(node, true)));
      for (const id of open) { const each = byId(id); if (each) each.open = true; }
      if (focused) byId(focused)?.focus();
      enhance(part);
      const after = word(part);
      if (after && after !== before) byId("announce").textContent = after;
    }
  }

  async function refresh() {
    timer = null;
    if (busy) { again = true; return; }
    if (document.hidden) return;
    busy = true;
    last = Date.now();
    try {
      const answer = await fetch(location.pathname + location.search, { headers: { accept: "text/html", "forge-parts": "1" } });
      if (answer.redirected && new URL(answer.url).pathname !== location.pathname) return location.reload();
      if (answer.ok) {
        adopt(new DOMParser().parseFromString(await answer.text(), "text/html"));
        document.body.dataset.fresh = "yes";
      }
    } catch { /* The daemon is away: the next event, or the next look, brings it. */ }
    busy = false;
    if (again) { again = false; soon(); }
  }
  function soon() {
    if (timer === null) timer = setTimeout(refresh, Math.max(0, REFRESH_MS_MIN - (Date.now() - last)));
  }

  function listen() {
    let polling = null;
    const poll = () => { if (polling === null) { soon(); polling = setInterval(soon, POLL_MS); } };
    const events = new EventSource("/api/v1/events");
    events.onopen = () => { clearInterval(polling); polling = null; soon(); };
    // A browser connects again by itself, but not after an answer that is no stream.
    events.onerror = poll;
    for (const name of ["task", "runner", "runner_removed", "config", "reset"]) events.addEventListener(name, soon);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) soon(); });
  }

  enhance(document);
  setInterval(() => tellTimes(document), TICK_MS);
  if (document.querySelector("[data-live]")) listen();
})();
