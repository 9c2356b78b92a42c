// Every page in light and in dark: what axe finds wrong, whether it fits a phone, and a picture of it.
import assert from "node:assert/strict";
import { browser, checkAccess, open, picture, signIn, story, told, waitFor, write } from "./harness.mjs";

/** What stands there for sure before it is looked at. */
async function settle(page, path) {
  await page.goto(path);
  await page.locator("h1").first().waitFor();
  if (await page.locator("#log").count()) {
    await waitFor("the log", async () => (await page.locator("#log .row").count()) > 0 && !(await page.locator("#log .log-view").innerText()).includes("…"));
  }
}

/** A page on a phone scrolls down and never sideways. */
async function checkWidth(page, path) {
  const [wide, seen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= seen, `${path} is ${wide} px wide on a phone of ${seen}`);
}

await story(async () => {
  const context = await browser();
  const page = await open(context, null, [404]);
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
    await page.goto("/login");
    await checkAccess(page, `sign in, ${scheme}`);
    await picture(page, `sign-in-${scheme}`);
  }
  await signIn(page);
  for (const [name, path] of told.pages) {
    await settle(page, path);
    if (name === "configuration") {
      write("projects/shop/templates/broken.toml", "executor = \"shel\"\n");
      await page.locator("#config .note.bad").waitFor();
    }
    for (const scheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
      await checkAccess(page, `${name}, ${scheme}`);
      await picture(page, `${name}-${scheme}`);
    }
  }
  await page.setViewportSize({ width: 375, height: 800 });
  for (const [name, path] of told.pages) {
    await settle(page, path);
    await checkWidth(page, path);
    await picture(page, `${name}-phone`);
  }
  // The first visit: what the first page and all that it loads weigh.
  await page.goto("/");
  await page.waitForLoadState("load");
  const bytes = await page.evaluate(() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")].filter((each) => !each.name.includes("/api/")).map((each) => each.decodedBodySize));
  const sum = bytes.reduce((one, other) => one + other, 0);
  assert.ok(bytes.length >= 3 && sum > 20_000 && sum < 100 * 1024, `the first page takes ${bytes} bytes`);
});
