// Text from everywhere that would like to be markup: on every page it is text, and nothing of it runs.
import assert from "node:assert/strict";
import { browser, checkElements, open, signIn, story, told, waitFor } from "./harness.mjs";

await story(async () => {
  const context = await browser();
  const page = await open(context, null, [422]);
  await signIn(page);
  // A sender's own name for its request.
  await context.request.post("/hooks/shop/inbound", { headers: { "x-github-delivery": told.word }, data: { word: told.word } });
  for (const path of told.paths) {
    await page.goto(path);
    await checkElements(page, path);
    for (const each of await page.locator("details").all()) await each.evaluate((details) => { details.open = true; });
    // What the live parts bring anew is looked at, too.
    await page.waitForFunction(() => !document.querySelector("[data-live]") || document.body.dataset.fresh);
    await checkElements(page, `${path}, later`);
  }
  await page.goto(`/tasks/${told.task}`);
  await waitFor("the log is there", async () => (await page.locator("#log .row").count()) > 5 && !(await page.locator("#log .log-view").innerText()).includes("…"));
  const shown = await page.locator("#log").innerText();
  for (const part of told.logged) assert.ok(shown.includes(part), `${part} is shown as text in\n${shown}`);
  assert.ok(!/[\u0000-\u0008\u001b]/.test(shown), "no control character is left");
  assert.equal(await page.locator("#log .row .say a").count(), 0, "a link in a log is text");
  // Inverse text is drawn with its colour behind it, and in one that can be read there.
  const colours = (element) => { const style = getComputedStyle(element); return [style.color, style.backgroundColor]; };
  assert.deepEqual(await page.locator("#log .say span", { hasText: "turned" }).evaluate(colours), ["rgb(0, 0, 0)", "rgb(255, 135, 0)"]);
  await checkElements(page, "the log");
  // A survey answer comes back as what it was.
  await page.goto("/projects/shop/templates/hostile");
  await page.locator("input[name='answer.word']").fill(told.word);
  await page.locator("#run form").evaluate((form) => { form.noValidate = true; form.querySelector("[name='answer.count']").value = "9"; });
  await page.getByRole("button", { name: "Run hostile" }).click();
  await page.locator("#answer-count-wrong").waitFor();
  assert.equal(await page.locator("input[name='answer.word']").inputValue(), told.word);
  await checkElements(page, "the form");
});
