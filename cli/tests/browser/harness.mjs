// What every story in a browser needs: a fresh Chromium that talks to nobody but the daemon, pages that fail on anything that a page
// must not do, and facts that are waited for. Stories get what they need to know as JSON in FORGE_STORY.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

/** url, token, tree, packages, browser, screenshots, and whatever else the story is told. */
export const told = JSON.parse(process.env.FORGE_STORY);
const require = createRequire(join(told.packages, "package.json"));
const { chromium } = require("playwright-core");
const axeSource = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/** How long a fact may take: it bounds a broken run and measures nothing. */
const FACT_MS = 60_000;

const FLAGS = [
  "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--disable-extensions",
];

const profile = mkdtempSync(join(tmpdir(), "forge-browser-"));
const browsers = [];

/** A browser of its own, whose pages are guarded. */
export async function browser(options = {}) {
  const folder = mkdtempSync(join(profile, "profile-"));
  const context = await chromium.launchPersistentContext(folder, {
    executablePath: told.browser, headless: true, args: FLAGS, ignoreHTTPSErrors: true, baseURL: told.url,
    viewport: { width: 1280, height: 800 }, colorScheme: "light", ...options,
  });
  context.setDefaultTimeout(FACT_MS);
  browsers.push(context);
  if (options.javaScriptEnabled !== false) {
    await context.addInitScript(() => {
      document.addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
    });
  }
  return context;
}

/** What pages did that no page may do. */
export const misdeeds = [];

/** A page that is watched. `expected` are answers that the story asks for on purpose, such as 404. */
export async function open(context, path, expected = []) {
  const page = await context.newPage();
  page.on("dialog", (dialog) => { misdeeds.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("pageerror", (error) => misdeeds.push(`an error: ${error.stack}`));
  page.on("console", (message) => {
    const status = /responded with a status of (\d+)/.exec(message.text());
    if (message.type() === "error" && !(status && expected.includes(Number(status[1])))) misdeeds.push(`the console: ${message.text()} (${page.url()})`);
  });
  page.on("popup", () => misdeeds.push("a popup"));
  page.on("request", (request) => { if (!request.url().startsWith(told.url) && !request.url().startsWith("data:")) misdeeds.push(`a request to ${request.url()}`); });
  if (path) await page.goto(path);
  return page;
}

/** Signs in, as a person does. */
export async function signIn(page, path = "/") {
  await page.goto(path);
  assert.equal(new URL(page.url()).pathname, "/login");
  await page.getByLabel("Access token").fill(told.token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL((url) => url.pathname !== "/login");
}

/** Asks the API as the admin, as another program would. */
export async function api(context, method, path, data) {
  const answer = await context.request.fetch(`/api/v1${path}`, { method, data, headers: { authorization: `Bearer ${told.token}` } });
  assert.ok(answer.ok(), `${method} ${path}: ${answer.status()} ${await answer.text()}`);
  return answer.status() === 204 ? null : answer.json();
}

/** Starts a task of the shop and answers its number. */
export const startTask = async (context, template, variables = {}) =>
  (await api(context, "POST", `/projects/shop/templates/${template}/tasks`, { variables })).number;

/** Has a page ask for its parts anew, and waits until it has taken them. */
export async function refresh(page) {
  const before = await page.evaluate(() => {
    dispatchEvent(new Event("pagehide"));
    dispatchEvent(new Event("pageshow"));
    return Number(document.body.dataset.fresh ?? "0");
  });
  await page.waitForFunction((before) => Number(document.body.dataset.fresh ?? "0") > before, before);
}

/** Looks for a fact until it is there. */
export async function waitFor(what, look) {
  const end = Date.now() + FACT_MS;
  for (;;) {
    const fact = await look();
    if (fact) return fact;
    assert.ok(Date.now() < end, `waited in vain for: ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

/** Writes a file of the tree, by rename as an editor does. */
export function write(file, text) {
  const path = join(told.tree, file);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(join(dirname(path), ".new"), text);
  renameSync(join(dirname(path), ".new"), path);
}

/** Fails on what axe finds. */
export async function checkAccess(page, name) {
  await page.evaluate(axeSource);
  const found = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  const text = found.violations.map((each) => `${each.id}: ${each.help}\n${each.nodes.slice(0, 5).map((node) => `  ${node.html}\n  ${node.failureSummary}`).join("\n")}`);
  assert.deepEqual(text, [], `${name}: axe found\n${text.join("\n")}`);
}

/** Fails on elements that no page of ours has. */
export async function checkElements(page, name) {
  const found = await page.evaluate(() => {
    const foreign = "img, iframe, object, embed, base, form:not([action^='/']):not([data-script]), script:not([src^='/assets/']), marquee, b[onclick], math";
    const handlers = [...document.querySelectorAll("*")].filter((each) => [...each.attributes].some((attribute) => attribute.name.startsWith("on")));
    const outside = [...document.querySelectorAll("a[href]")].filter((each) => each.origin !== location.origin);
    return [...document.querySelectorAll(foreign), ...handlers, ...outside].map((each) => each.outerHTML.slice(0, 200));
  });
  assert.deepEqual(found, [], `${name}: elements that are not ours`);
}

/** A picture of what is in sight; kept only where the story is told a folder. */
export async function picture(page, name) {
  // Where this story's world lies is nothing to show.
  await page.evaluate((tree) => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text = texts.nextNode(); text; text = texts.nextNode()) text.data = text.data.replaceAll(tree, "/etc/forge/config");
  }, told.tree);
  const taken = await page.screenshot({ animations: "disabled", caret: "hide" });
  if (told.screenshots) { mkdirSync(told.screenshots, { recursive: true }); writeFileSync(join(told.screenshots, `${name}.png`), taken); }
}

/** Runs a story to its end and says how it went. */
export async function story(run) {
  let failed = false;
  try {
    await run();
    assert.deepEqual(misdeeds, [], "a page did what no page may do");
  } catch (error) {
    failed = true;
    console.error(error.stack ?? error);
    for (const deed of misdeeds) console.error(deed);
    for (const context of browsers) {
      for (const page of context.pages()) {
        console.error(`at ${page.url()}:\n${(await page.locator("main").innerText({ timeout: 2000 }).catch(() => "")).slice(0, 3000)}`);
      }
    }
  }
  for (const context of browsers) await context.close().catch(() => {});
  rmSync(profile, { recursive: true, force: true });
  process.exit(failed ? 1 : 0);
}
