// A log of a million lines: it is shown, scrolled, searched and linked to, and only the lines in sight are elements of the page.
import assert from "node:assert/strict";
import { browser, open, signIn, story, told, waitFor } from "./harness.mjs";

const rows = (page) => page.locator("#log .row");
const lines = async (page) => (await page.locator("#log .row .no").allInnerTexts()).map(Number);

/** The lines in sight, once they came. */
async function sees(page, what, number) {
  await waitFor(what, async () => (await lines(page)).includes(number) && !(await page.locator("#log .log-view").innerText()).includes("…"));
  assert.ok((await rows(page).count()) < 200, "only what is in sight is there");
}

/** Of long lines an answer holds fewer than were asked for: all in sight come, with few requests, and then there is rest. */
async function longLines(context) {
  const page = await open(context);
  let asked = 0;
  page.on("request", (request) => { if (request.url().includes("/log/lines")) asked += 1; });
  await page.goto(`/tasks/${told.wide}?attempt=1#L400`);
  await sees(page, "a line in the middle", 400);
  await page.locator("#log .log-view").focus();
  await page.keyboard.press("End");
  await sees(page, "the last line", 1200);
  await page.keyboard.press("Home");
  await sees(page, "the first line", 1);
  const before = asked;
  for (let frame = 0; frame < 60; frame += 1) await page.evaluate(() => new Promise((done) => requestAnimationFrame(done)));
  assert.equal(asked, before, "what is there is not asked for again");
  assert.ok(asked <= 12, `${asked} requests`);
  await page.close();
}

await story(async () => {
  const context = await browser();
  const page = await open(context);
  await signIn(page, `/tasks/${told.task}`);
  await waitFor("all lines are counted", async () => (await page.locator("#log [data-log-count]").innerText()) === "1,000,002 lines");
  const view = page.locator("#log .log-view");
  await view.focus();
  await page.keyboard.press("End");
  await sees(page, "the last line", 1_000_002);
  assert.match(await view.innerText(), /line 1000000 of/);
  await page.keyboard.press("Home");
  await sees(page, "the first line", 1);
  // The bar: half of its way is the middle of the log.
  await view.evaluate((element) => { element.scrollTop = (element.scrollHeight - element.clientHeight) / 2; });
  await waitFor("the middle", async () => (await lines(page)).some((number) => Math.abs(number - 500_000) < 1_000));
  // The wheel: lines, whatever the bar stands for.
  const before = (await lines(page))[0];
  await view.hover();
  await page.mouse.wheel(0, 200);
  await waitFor("ten lines on", async () => (await lines(page))[0] === before + 10);

  await page.keyboard.press("/");
  await page.getByRole("searchbox", { name: "Search the log" }).fill("line 777777 of");
  await page.keyboard.press("Enter");
  await waitFor("the hit", async () => (await page.locator("#log [data-log-hits]").innerText()) === "1 of 1");
  await sees(page, "the hit is in sight", 777_778);
  assert.equal(await page.locator("#log .row.current").innerText().then((text) => text.includes("line 777777 of")), true);
  await page.keyboard.press("Escape");
  await page.keyboard.press("Home");
  await page.getByRole("button", { name: "Next error" }).click();
  await sees(page, "the error", 900_001);

  await page.locator("#log .row a.no", { hasText: /^900001$/ }).click();
  assert.match(page.url(), /#L900001$/);
  await page.locator("#log .row a.no", { hasText: /^900003$/ }).click({ modifiers: ["Shift"] });
  assert.match(page.url(), /\?attempt=1#L900001-L900003$/);
  const other = await open(context, page.url());
  await sees(other, "a link leads to its lines", 900_003);
  assert.equal(await other.locator("#log .row.picked").count(), 3);
  await other.getByRole("button", { name: "Wrap" }).click();
  await sees(other, "long lines wrap", 900_001);
  // The same with keys: a line is chosen, and the address leads to it.
  await other.getByRole("button", { name: "Wrap" }).click();
  await other.locator("#log .log-view").focus();
  await other.keyboard.press("Home");
  await sees(other, "the first line", 1);
  for (const key of ["ArrowDown", "ArrowDown", "Enter"]) await other.keyboard.press(key);
  assert.match(other.url(), /\?attempt=1#L2$/);
  for (const key of ["ArrowDown", "Shift+Enter"]) await other.keyboard.press(key);
  assert.match(other.url(), /#L2-L3$/);
  await longLines(context);
  const download = other.waitForEvent("download");
  await other.getByRole("link", { name: "Download" }).click();
  assert.equal((await download).suggestedFilename(), `task-${told.task}-1.log`);
});
