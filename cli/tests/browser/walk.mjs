// A day of an operator: sign in, run a template through its form, watch the log grow, cancel, approve, reject, drain and resume a
// runner, see a mistake of the configuration come and go, sign out.
import assert from "node:assert/strict";
import { existsSync, writeFileSync } from "node:fs";
import { browser, open, signIn, story, told, waitFor, write } from "./harness.mjs";

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

async function cancel(page) {
  await start(page, "endless");
  await waitFor("it runs", async () => (await log(page)).includes("working"));
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

async function decide(page) {
  await plan(page);
  await page.getByLabel("Reason").fill("looks right");
  await page.getByRole("button", { name: "Approve" }).click();
  await waitFor("it was done", async () => (await text(page, "#task")).includes("succeeded"));
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
  const page = await open(context, null, [422]);
  await signIn(page, "/templates");
  assert.equal(new URL(page.url()).pathname, "/templates", "who signs in comes to where they wanted");
  const number = await runThroughTheForm(page);
  await watchTheLogGrow(page);
  await cancel(page);
  await decide(page);
  await drainAndResume(page);
  await mistakeComesAndGoes(page);
  await filters(page);
  await page.goto("/tasks");
  const ran = await page.locator("#tasks tbody tr", { hasText: "shop/deploy" }).count();
  assert.equal(ran, 1, `a double click makes one task: ${number}`);
  assert.ok(existsSync(told.gate));
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.waitForURL(/\/login/);
  await page.goto("/tasks");
  assert.equal(new URL(page.url()).pathname, "/login");
});
