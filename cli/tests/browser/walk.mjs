// A day of an operator: sign in, run a template through its form, watch the log grow, cancel, approve, reject, drain and resume a
// runner, see a mistake of the configuration come and go, sign out.
import assert from "node:assert/strict";
import { existsSync, writeFileSync } from "node:fs";
import { api, browser, open, refresh, signIn, startTask, story, told, waitFor, write } from "./harness.mjs";

const text = (page, selector) => page.locator(selector).innerText();
const log = (page) => text(page, "#log .log-view");

async function runThroughTheForm(page) {
  await page.goto("/templates");
  await page.getByRole("link", { name: "deploy", exact: true }).click();
  // The browser knows the survey's rules: it does not even send what is needed and not there.
  await page.getByRole("button", { name: "Run deploy" }).click();
  assert.equal(await page.locator("input[name='answer.version']").evaluate((field) => field.validity.valueMissing), true);
  // What only the daemon judges is said at the field, and the other answers are kept; a secret is not.
  await page.getByLabel("version").fill("nonsense");
  await page.getByLabel("hosts").fill("7");
  await page.getByLabel("password").fill("hunter2");
  await page.locator("#run form").evaluate((form) => { form.noValidate = true; });
  await page.getByRole("button", { name: "Run deploy" }).click();
  await page.locator("#answer-version-wrong").waitFor();
  assert.match(await text(page, "#answer-version-wrong"), /must be a text that matches/);
  assert.equal(await page.getByLabel("hosts").inputValue(), "7");
  assert.equal(await page.getByLabel("password").inputValue(), "");
  await page.getByLabel("version").fill("v12");
  await page.getByLabel("password").fill("hunter2");
  await page.getByRole("button", { name: "Run deploy" }).dblclick();
  await page.waitForURL(/\/tasks\/\d+$/);
  return Number(/(\d+)$/.exec(page.url())[1]);
}

async function watchTheLogGrow(page) {
  await waitFor("the first line", async () => (await log(page)).includes("deploying v12 to 7 hosts"));
  assert.ok(!(await log(page)).includes("second"), "the job waits for its gate");
  writeFileSync(told.gate, "");
  await waitFor("the log grows", async () => (await log(page)).includes("second"));
  assert.ok(!(await log(page)).includes("hunter2"), "a secret is masked");
  await waitFor("it is told as succeeded", async () => (await text(page, "#task")).includes("succeeded"));
  await waitFor("the log is whole", async () => (await text(page, "#log [data-log-status]")) === "complete");
  assert.match(await text(page, "#details"), /version\s+v12/);
}

async function start(page, template) {
  await page.goto(`/projects/shop/templates/${template}`);
  await page.getByRole("button", { name: `Run ${template}` }).click();
  await page.waitForURL(/\/tasks\/\d+$/);
}

/** Answers of several lines, typed, pasted and as they were proposed, arrive as they are. */
async function severalLines(page) {
  await page.goto("/projects/shop/templates/certificate");
  assert.equal(await page.getByLabel("motd").inputValue(), "welcome\nto the shop\n");
  await page.getByLabel("key").fill("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n-----END PRIVATE KEY-----\n");
  await page.getByLabel("pin").fill("1234\n");
  await page.evaluate(() => navigator.clipboard.writeText("one\ntwo"));
  await page.getByLabel("note").focus();
  await page.keyboard.press("Control+V");
  assert.equal(await page.getByLabel("note").inputValue(), "one\ntwo");
  await page.getByRole("button", { name: "Run certificate" }).click();
  await page.waitForURL(/\/tasks\/\d+$/);
  await waitFor("the lines", async () => (await text(page, "#log [data-log-status]")) === "complete");
  // Line ends and bytes of each.
  const counts = (await page.locator("#log .row .say").allInnerTexts()).map((line) => line.trim());
  assert.deepEqual(counts, ["key 3 77", "pin 0 4", "motd 2 20", "note 1 7"]);
}

/** A page that was opened before a runner began, and one whose task goes on with another attempt, show what comes. */
async function logsThatComeLater(page, context) {
  await api(context, "POST", "/runners/ny-1/drain");
  await page.goto(`/tasks/${await startTask(context, "uneasy")}`);
  assert.match(await text(page, "#log"), /no log before a runner begins/);
  await api(context, "POST", "/runners/ny-1/resume");
  await waitFor("the log of a task that waited", async () => (await log(page)).includes("error: the first"));
  await nextError(page);
  // Another attempt by itself, after a while.
  await page.goto(`/tasks/${await startTask(context, "flaky")}`);
  await waitFor("the first attempt", async () => (await log(page)).includes("first try"));
  writeFileSync(`${told.gate}.third`, "");
  await waitFor("the second", async () => (await log(page)).includes("second try"));
  assert.equal(await text(page, "#log-title"), "Log of attempt 2");
  assert.match(await page.locator("#log [download]").getAttribute("href"), /attempt=2$/);
  // Who looks at one attempt keeps it.
  await page.getByRole("link", { name: "#1", exact: true }).click();
  await waitFor("what was asked for", async () => (await log(page)).includes("first try"));
  await refresh(page);
  assert.equal(await text(page, "#log-title"), "Log of attempt 1");
}

/** An error that comes later is found by the next press; what is in sight is where a search begins. */
async function nextError(page) {
  const hits = () => text(page, "#log [data-log-hits]");
  await page.getByRole("button", { name: "Next error" }).click();
  await waitFor("the first error", async () => (await hits()) === "1 of 1");
  writeFileSync(`${told.gate}.second`, "");
  await waitFor("the log is whole", async () => (await text(page, "#log [data-log-status]")) === "complete");
  await page.getByRole("button", { name: "Next error" }).click();
  await waitFor("the second error", async () => (await hits()) === "2 of 2");
  await waitFor("it is in sight", async () => (await log(page)).includes("error: the second"));
  await page.locator("#log .log-view").focus();
  await page.keyboard.press("Home");
  await waitFor("the beginning", async () => (await log(page)).includes("error: the first"));
  await page.getByRole("button", { name: "Next error" }).click();
  await waitFor("the first again, since it is in sight", async () => (await hits()) === "1 of 2");
}

async function cancel(page) {
  await start(page, "endless");
  await waitFor("it runs", async () => (await log(page)).includes("working"));
  // Scrolling up ends following, and the button brings it back.
  const follow = page.getByRole("button", { name: "Follow" });
  const all = async () => Number(await page.locator("#log").getAttribute("data-total"));
  const last = async () => Number(await page.locator("#log .row .no").last().innerText());
  await waitFor("more lines than fit", async () => (await all()) > (await page.locator("#log .row").count()) + 1);
  assert.equal(await follow.getAttribute("aria-pressed"), "true");
  await page.locator("#log .log-view").focus();
  await page.keyboard.press("Home");
  assert.equal(await follow.getAttribute("aria-pressed"), "false");
  await waitFor("the beginning", async () => (await last()) < (await all()));
  await follow.click();
  const seen = await waitFor("its end", async () => (await last()) === (await all()) && last());
  await waitFor("what comes", async () => (await last()) > seen);
  await page.getByRole("button", { name: "Cancel" }).click();
  await waitFor("it is canceled", async () => (await text(page, "#task")).includes("canceled"));
  assert.match(await text(page, "#task .note"), /admin/);
}

async function plan(page) {
  await page.goto("/projects/shop/templates/greet");
  await page.getByLabel("Arguments").fill(`bash\n-c\n${told.script}`);
  await page.getByRole("button", { name: "Run greet" }).click();
  await page.waitForURL(/\/tasks\/\d+$/);
  await page.getByRole("button", { name: "Approve" }).waitFor();
  assert.match(await text(page, "#task"), /one thing to do/);
}

async function decide(page, context) {
  await plan(page);
  await page.getByLabel("Reason").fill("looks right");
  // What was typed, and the focus, outlive that the page changes.
  await page.keyboard.press("Tab");
  await refresh(page);
  assert.equal(await page.getByLabel("Reason").inputValue(), "looks right");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Approve");
  await api(context, "POST", "/runners/ny-1/drain");
  await page.keyboard.press("Enter");
  await waitFor("it waits", async () => (await text(page, "#task")).includes("queued"));
  await waitFor("what was planned", async () => (await log(page)).includes("planned"));
  await api(context, "POST", "/runners/ny-1/resume");
  await waitFor("it was done", async () => (await text(page, "#task")).includes("succeeded"));
  await waitFor("its log", async () => (await log(page)).includes("ny-1 does: greet"));
  assert.match(await text(page, "#details"), /Approved by\s+admin/);
  await plan(page);
  await page.getByLabel("Reason").fill("not today");
  await page.getByRole("button", { name: "Reject" }).click();
  await waitFor("it was rejected", async () => (await text(page, "#task")).includes("not today"));
}

async function drainAndResume(page) {
  await page.goto("/runners");
  await page.getByRole("button", { name: "Drain ny-1" }).click();
  await page.getByRole("button", { name: "Resume ny-1" }).waitFor();
  assert.match(await text(page, "#runners"), /draining/);
  await page.getByRole("button", { name: "Resume ny-1" }).click();
  await page.getByRole("button", { name: "Drain ny-1" }).waitFor();
  assert.match(await text(page, "#runners"), /online/);
}

/** A list that changes keeps the focus and the place that one scrolled to. */
async function listThatChanges(page, context) {
  await page.goto("/tasks");
  await page.setViewportSize({ width: 375, height: 800 });
  const first = page.locator("#tasks tbody th a").first();
  await first.focus();
  const path = await first.getAttribute("href");
  await page.locator("#tasks .scroll").evaluate((element) => { element.scrollLeft = 150; });
  await runsOneMore(context, [page]);
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("href")), path);
  assert.equal(await page.locator("#tasks .scroll").evaluate((element) => element.scrollLeft), 150);
  await page.setViewportSize({ width: 1280, height: 800 });
}

/** Starts a task, and waits until lists of tasks show that it ended. */
async function runsOneMore(context, lists) {
  const number = await startTask(context, "check");
  for (const list of lists) {
    const row = list.locator("#tasks tbody tr", { has: list.getByRole("link", { name: `#${number}`, exact: true }) });
    await row.filter({ hasText: /succeeded|failed/ }).waitFor();
  }
}

/** A browser opens six connections to a host: of many tabs one listens, and another when nobody sees that. */
async function manyTabs(page, context) {
  const streams = [];
  context.on("request", (request) => { if (new URL(request.url()).pathname === "/api/v1/events") streams.push(request.frame().page()); });
  await page.goto("/tasks");
  const tabs = [page];
  for (let number = 1; number < 8; number += 1) tabs.push(await open(context, "/tasks"));
  await Promise.all(tabs.map((tab) => tab.locator("h1").waitFor()));
  await runsOneMore(context, tabs);
  assert.equal(new Set(streams).size, 1, "one tab listens");
  const listener = streams[0];
  await listener.evaluate(() => {
    Object.defineProperty(document, "hidden", { get: () => true, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await waitFor("another one listens", async () => new Set(streams).size === 2);
  await listener.evaluate(() => {
    delete document.hidden;
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await runsOneMore(context, tabs);
  assert.equal(new Set(streams).size, 2);
  for (const tab of tabs.slice(1)) await tab.close();
}

/** A page of the configuration is not asked for because a task ran. */
async function quietPage(page, context) {
  await page.goto("/config");
  let asked = 0;
  page.on("request", (request) => { if (new URL(request.url()).pathname === "/config") asked += 1; });
  const list = await open(context, "/tasks");
  await refresh(page);
  const before = asked;
  await runsOneMore(context, [list]);
  assert.equal(asked, before);
  await list.close();
}

/** A form whose sending was stopped can be sent again. */
async function sendAgain(page) {
  await page.clock.install();
  await page.goto("/projects/shop/templates/check");
  const path = "**/templates/check/run";
  let tries = 0;
  await page.route(path, (route) => {
    tries += 1;
    return tries === 1 ? route.abort("aborted") : route.continue();
  });
  const run = page.getByRole("button", { name: "Run check" });
  await run.click({ noWaitAfter: true });
  await waitFor("the first sending", async () => tries === 1);
  await run.click({ noWaitAfter: true });
  await page.clock.runFor(6_000);
  assert.equal(tries, 1, "it is sent once");
  await run.click({ noWaitAfter: true });
  await page.waitForURL(/\/tasks\/\d+$/);
  await page.unroute(path);
}

async function webhooks(page) {
  await page.goto("/webhooks");
  await page.getByRole("button", { name: "Test ops" }).click();
  await page.waitForURL(/\/webhooks\/deliveries\//);
  // When it was delivered last.
  const delivered = async () => (await text(page, "#delivery .titled")).includes("delivered") && page.locator("#delivery dt:has-text('Ended') + dd time").getAttribute("datetime");
  const first = await waitFor("the test arrived", delivered);
  await page.getByRole("button", { name: "Deliver again" }).click();
  await waitFor("it arrived once more", async () => ![false, first].includes(await delivered()));
}

/** The commands that add a runner, as they are copied from the page. */
async function commands(page) {
  await page.goto("/runners");
  const copied = {};
  for (const id of ["add-token", "add-setup", "add-start"]) {
    const button = page.locator(`[data-copy="${id}"]`);
    await button.click();
    await waitFor("it was copied", async () => (await button.innerText()) === "Copied");
    copied[id] = await page.evaluate(() => navigator.clipboard.readText());
    assert.equal(copied[id], await text(page, `#${id}`));
  }
  writeFileSync(told.commands, JSON.stringify(copied));
}

async function removeRunner(page) {
  await page.goto("/runners");
  await page.getByText("Remove… spare").click();
  await page.getByRole("button", { name: "Remove for good spare" }).click();
  await waitFor("it is gone", async () => !(await text(page, "#runners")).includes("spare"));
}

async function mistakeComesAndGoes(page) {
  await page.goto("/config");
  await page.locator("#config .note.good").waitFor();
  write("projects/shop/templates/broken.toml", "executor = \"shel\"\n");
  await page.locator("#config .note.bad").waitFor();
  const shown = await text(page, "#config .note.bad");
  assert.match(shown, /projects\/shop\/templates\/broken\.toml:1:12: error\[FORGE-C\d+\]/);
  assert.match(shown, /1 \| executor = "shel"/);
  assert.match(shown, /shell/);
  // Every page says so, and the code leads to what it means.
  await page.goto("/tasks");
  await page.getByRole("link", { name: "See what is wrong" }).click();
  await page.getByRole("link", { name: /FORGE-C/ }).first().click();
  await page.waitForURL(/\/config\/codes#FORGE-C/);
  await page.goto("/config");
  write("projects/shop/templates/broken.toml", "executor = \"shell\"\n[params]\nscript = \"true\"\n");
  await page.locator("#config .note.good").waitFor();
  await waitFor("the difference is shown", async () => (await text(page, "#config")).includes("templates/broken"));
}

async function filters(page) {
  await page.goto("/tasks");
  await page.getByLabel("State").selectOption("canceled");
  await page.getByLabel("Template").selectOption("endless");
  await page.getByRole("button", { name: "Filter" }).click();
  await page.waitForURL(/state=canceled/);
  assert.equal(await page.locator("#tasks tbody tr").count(), 1);
  await page.reload();
  assert.equal(await page.getByLabel("State").inputValue(), "canceled");
  assert.equal(await page.getByLabel("Template").inputValue(), "endless");
  await page.keyboard.press("g");
  await page.keyboard.press("r");
  await page.waitForURL(/\/runners$/);
}

await story(async () => {
  const context = await browser();
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const page = await open(context, null, [422]);
  await signIn(page, "/templates");
  assert.equal(new URL(page.url()).pathname, "/templates", "who signs in comes to where they wanted");
  const number = await runThroughTheForm(page);
  await watchTheLogGrow(page);
  await severalLines(page);
  await logsThatComeLater(page, context);
  await cancel(page);
  await decide(page, context);
  await drainAndResume(page);
  await listThatChanges(page, context);
  await manyTabs(page, context);
  await quietPage(page, context);
  await webhooks(page);
  await commands(page);
  await removeRunner(page);
  await mistakeComesAndGoes(page);
  await filters(page);
  await page.goto("/tasks");
  const ran = await page.locator("#tasks tbody tr", { hasText: "shop/deploy" }).count();
  assert.equal(ran, 1, `a double click makes one task: ${number}`);
  assert.ok(existsSync(told.gate));
  await sendAgain(page);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.waitForURL(/\/login/);
  await page.goto("/tasks");
  assert.equal(new URL(page.url()).pathname, "/login");
});
