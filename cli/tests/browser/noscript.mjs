// Without a script: sign in, list, read a log from its end to its beginning, run a form.
import assert from "node:assert/strict";
import { browser, open, signIn, story, told } from "./harness.mjs";

await story(async () => {
  const context = await browser({ javaScriptEnabled: false });
  const page = await open(context, null, [422]);
  await signIn(page, "/tasks?state=succeeded");
  assert.equal(await page.locator("#tasks tbody tr").count(), 2);
  await page.getByRole("link", { name: `#${told.task}` }).click();
  assert.match(await page.locator("#log").innerText(), /line 1200 of/);
  assert.equal(await page.locator("#log .row").count(), 500);
  assert.equal(await page.getByRole("button", { name: "Follow" }).count(), 0, "what needs a script is not shown");
  await page.getByRole("link", { name: "Earlier lines" }).click();
  await page.getByRole("link", { name: "Earlier lines" }).click();
  assert.match(await page.locator("#log").innerText(), /line 1 of/);
  // The link of a line leads to it.
  const link = page.locator("#log .row a.no", { hasText: /^7$/ });
  await page.goto(new URL(await link.getAttribute("href"), page.url()).href);
  assert.match(page.url(), /from=1#L7$/);
  assert.equal(await page.locator("#L7").isVisible(), true);
  // Of long lines fewer are shown, and the last are the last.
  const wide = await page.goto(`/tasks/${told.wide}`);
  assert.ok((await wide.body()).length < 200_000, `a page of ${(await wide.body()).length} bytes`);
  const last = () => page.locator("#log .row").last().innerText();
  assert.match(await last(), /^1200\s+line 1200 is long/);
  await page.getByRole("link", { name: "Earlier lines" }).click();
  await page.getByRole("link", { name: "Later lines" }).click();
  await page.getByRole("link", { name: "Last lines" }).click();
  assert.match(await last(), /^1200\s+line 1200 is long/);
  await page.goto("/projects/shop/templates/many");
  await page.getByLabel("lines").fill("3");
  await page.getByLabel("release").fill("the new one");
  await page.getByRole("button", { name: "Run many" }).click();
  assert.match(page.url(), /\/templates\/many\/run$/);
  assert.match(await page.locator("#run").innerText(), /1 answer does not fit/);
  assert.equal(await page.getByLabel("lines").inputValue(), "3", "what fits is kept");
  // Asked for once more, the address of the refused form is that of an empty one.
  assert.equal((await page.goto(page.url())).status(), 200);
  assert.equal(await page.getByLabel("release").inputValue(), "v1");
  await page.getByLabel("lines").fill("3");
  await page.getByRole("button", { name: "Run many" }).click();
  assert.match(page.url(), /\/tasks\/\d+$/);
  assert.match(await page.locator("#details").innerText(), /lines\s+3/);
});
