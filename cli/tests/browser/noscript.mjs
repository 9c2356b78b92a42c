// Without a script: sign in, list, read a log from its end to its beginning, run a form.
import assert from "node:assert/strict";
import { browser, open, signIn, story, told } from "./harness.mjs";

await story(async () => {
  const context = await browser({ javaScriptEnabled: false });
  const page = await open(context);
  await signIn(page, "/tasks?state=succeeded");
  assert.equal(await page.locator("#tasks tbody tr").count(), 1);
  await page.getByRole("link", { name: `#${told.task}` }).click();
  assert.match(await page.locator("#log").innerText(), /line 1200 of/);
  assert.equal(await page.locator("#log .row").count(), 500);
  assert.equal(await page.getByRole("button", { name: "Follow" }).count(), 0, "what needs a script is not shown");
  await page.getByRole("link", { name: "Earlier lines" }).click();
  await page.getByRole("link", { name: "Earlier lines" }).click();
  assert.match(await page.locator("#log").innerText(), /line 1 of/);
  await page.goto("/projects/shop/templates/many");
  await page.getByLabel("lines").fill("3");
  await page.getByRole("button", { name: "Run many" }).click();
  assert.match(page.url(), /\/tasks\/\d+$/);
  assert.match(await page.locator("#details").innerText(), /lines\s+3/);
});
