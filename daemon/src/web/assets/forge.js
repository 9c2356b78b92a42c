// What the dashboard does beyond what the pages do by themselves: fresh contents, relative times, copying, hints on charts and keys.
// Everything here only adds: without it each page still reads and each form still posts. Data becomes text, never markup.
"use strict";
(() => {
  const REFRESH_MS_MIN = 700;
  const POLL_MS = 5000;
  const TICK_MS = 10000;
  const COPIED_MS = 2000;
  const SENT_MS = 5000;
  const byId = (id) => document.getElementById(id);

  // A form that came back with its mistakes: loading it again is meant for the page that has the form, and must not send it once more.
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

  // Forms -------------------------------------------------------------------------------------------------------------------
  // One is sent once, and again only when its sending was stopped or takes very long.
  const sent = new WeakSet();
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post") return;
    if (sent.has(form)) return event.preventDefault();
    sent.add(form);
    setTimeout(() => sent.delete(form), SENT_MS);
  });
  addEventListener("pageshow", () => { for (const form of document.forms) sent.delete(form); });

  // A field of one line would drop the line ends of what is pasted: it becomes one of several.
  document.addEventListener("paste", (event) => {
    const field = event.target;
    const text = event.clipboardData?.getData("text/plain").replace(/\r\n?/g, "\n") ?? "";
    if (!(field instanceof HTMLInputElement && field.matches("[data-lines]") && text.trimEnd().includes("\n"))) return;
    event.preventDefault();
    const wide = document.createElement("textarea");
    for (const { name, value } of field.attributes) if (!["type", "value", "pattern"].includes(name)) wide.setAttribute(name, value);
    wide.value = field.value.slice(0, field.selectionStart) + text + field.value.slice(field.selectionEnd);
    field.replaceWith(wide);
    wide.focus();
  });

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
  // When something happens that a part of the page tells of, the page is asked for again, and such parts are changed into what it says.
  let busy = false, again = false, last = 0, took = 0, timer = null, fresh = 0;

  const parts = () => [...document.querySelectorAll("[data-live]")];

  // Nodes of the same key are the same thing at another time. A link that leads elsewhere and a form that does something else are another.
  function keyOf(node) {
    if (node.nodeType !== Node.ELEMENT_NODE) return String(node.nodeType);
    const names = ["id", "class", "href", "action", "name", "aria-label"].map((name) => node.getAttribute(name) ?? "");
    const row = node.matches("tr") ? node.querySelector("th a[href]")?.getAttribute("href") ?? node.querySelector("th")?.textContent : "";
    const heading = node.matches("section") ? node.querySelector("h2")?.textContent : "";
    return [node.tagName, ...names, row, heading].join("\n");
  }

  // Changes `old` into `newer` and leaves alone what is the same, so that nobody loses the focus, what they typed, or where they scrolled to.
  function turn(old, newer) {
    if (old.nodeType !== Node.ELEMENT_NODE) { if (old.data !== newer.data) old.data = newer.data; return; }
    // What a person opened stays open, and what a script shows stays shown.
    const kept = (name) => (name === "open" && old.id !== "") || (name === "hidden" && old.matches("[data-script]")) || (name === "tabindex" && old.matches("[data-live]"));
    for (const { name } of [...old.attributes]) if (!newer.hasAttribute(name) && !kept(name)) old.removeAttribute(name);
    for (const { name, value } of newer.attributes) if (old.getAttribute(name) !== value && !kept(name)) old.setAttribute(name, value);
    if (old.matches("time[data-ago], [data-since]")) return;
    const known = new Map();
    for (const child of old.childNodes) {
      const key = keyOf(child);
      known.set(key, [...(known.get(key) ?? []), child]);
    }
    const wanted = [...newer.childNodes].map((child) => [child, known.get(keyOf(child))?.shift()]);
    for (const gone of known.values()) for (const child of gone) child.remove();
    let at = old.firstChild;
    for (const [child, same] of wanted) {
      if (same && same === at) at = at.nextSibling;
      else old.insertBefore(same ?? document.importNode(child, true), at);
      if (same) turn(same, child);
    }
  }

  function adopt(page) {
    for (const part of parts()) {
      const newer = page.getElementById(part.id);
      if (!newer) continue;
      const word = () => part.querySelector("[data-announce]")?.textContent.trim();
      const before = word(), held = document.activeElement;
      const around = [];
      for (let each = part.contains(held) ? held : null; each; each = each === part ? null : each.parentElement) around.push(each);
      turn(part, newer);
      // Where what had the focus is gone, or was moved, it goes to what is nearest.
      if (around.length > 0 && document.activeElement !== held) {
        const next = around.find((each) => part.contains(each) && (each.tabIndex >= 0 || each === part));
        if (next.tabIndex < 0) next.tabIndex = -1;
        next.focus({ preventScroll: true });
      }
      enhance(part);
      const after = word();
      if (after && after !== before) byId("announce").textContent = after;
    }
    document.body.dataset.fresh = String(fresh += 1);
    document.dispatchEvent(new Event("forge-fresh"));
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
      if (answer.ok) adopt(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch { /* The daemon is away: the next event, or the next look, brings it. */ }
    took = Date.now() - last;
    busy = false;
    if (again) { again = false; soon(); }
  }
  // A page that takes the daemon long is asked for seldom.
  function soon() {
    if (timer === null) timer = setTimeout(refresh, Math.max(0, Math.max(REFRESH_MS_MIN, took * 10) - (Date.now() - last)));
  }

  // News --------------------------------------------------------------------------------------------------------------------
  // A browser opens few connections to one host: of its tabs one listens and tells the others, and none does that nobody sees.
  const tabs = "BroadcastChannel" in window ? new BroadcastChannel("forge-news") : null;
  let stop = null; // Ends this tab's listening, or its waiting for it.

  // News is told as words: `task` and `task:42`; `all` is what anybody has to read anew.
  function hear(words) {
    const asked = parts().flatMap((part) => part.dataset.on.split(" "));
    if (words.includes("all") || words.some((word) => asked.includes(word))) soon();
  }
  function tell(words) {
    tabs?.postMessage(words);
    hear(words);
  }

  // Listens until `ended`.
  function stream(ended) {
    const events = new EventSource("/api/v1/events");
    let polling = null;
    const rest = () => { clearInterval(polling); polling = null; };
    events.onopen = () => { rest(); tell(["all"]); };
    // A browser connects again by itself, but not after an answer that is no stream.
    events.onerror = () => { if (polling === null) { tell(["all"]); polling = setInterval(() => tell(["all"]), POLL_MS); } };
    for (const name of ["task", "runner", "runner_removed", "config", "reset"]) {
      events.addEventListener(name, ({ data }) => {
        const { number, name: runner } = JSON.parse(data);
        tell({ task: ["task", `task:${number}`], config: ["config"], reset: ["all"] }[name] ?? ["runner", `runner:${runner}`]);
      });
    }
    return new Promise((done) => ended.addEventListener("abort", () => { rest(); events.close(); done(); }));
  }

  function listen() {
    if (stop !== null || document.hidden || !document.querySelector("[data-live]")) return;
    stop = new AbortController();
    const { signal } = stop;
    soon();
    // Without locks, as over plain HTTP, each tab listens for itself.
    if (!tabs || !navigator.locks) return void stream(signal);
    navigator.locks.request("forge-news", { signal }, () => stream(signal)).catch(() => { /* It stopped waiting. */ });
  }
  function rest() {
    stop?.abort();
    stop = null;
  }

  enhance(document);
  setInterval(() => tellTimes(document), TICK_MS);
  // No event tells of what webhooks and integrations do.
  setInterval(() => hear(["poll"]), POLL_MS);
  if (tabs) tabs.onmessage = ({ data }) => hear(data);
  document.addEventListener("visibilitychange", () => { if (document.hidden) rest(); else listen(); });
  addEventListener("pagehide", rest);
  addEventListener("pageshow", listen);
  listen();
})();
