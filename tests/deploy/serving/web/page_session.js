// Uses the page as a person would, in headless Chromium; prints what was seen as JSON.
//
//     node page_session.js URL CHROMIUM IMAGE NO_IMAGE [FOLDER_FOR_SCREENSHOTS]
"use strict";

const fs = require("fs");
const { chromium } = require("playwright-core");
const [url, executablePath, image, noImage, folder] = process.argv.slice(2);

const seen = { errors: [], strangers: [] };

async function opened(browser, options) {
  const context = await browser.newContext({ permissions: ["camera"], ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.on("console", (message) => message.type() === "error" && seen.errors.push(message.text()));
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("request", (request) => {
    if (/^(http|ws)/.test(request.url()) && !request.url().startsWith(url)) seen.strangers.push(request.url());
  });
  await page.goto(url);
  await page.getByText(/ready$/).waitFor();
  return page;
}

async function answered(page, act) {
  await page.evaluate(() => document.getElementById("columns").replaceChildren());
  await act();
  await page.locator("#columns li").first().waitFor();
  await page.waitForFunction(() => [...document.images].every((found) => found.complete));
  return page.locator("#columns article").evaluateAll((articles) => articles.map((article) => ({
    classes: [...article.querySelectorAll(".names")].map((names) => names.children[0].textContent),
    shares: [...article.querySelectorAll(".names")].map((names) => parseFloat(names.children[1].textContent)),
    bars: [...article.querySelectorAll(".bar div")].map((bar) => parseFloat(bar.style.width)),
    stages: [...article.querySelectorAll("th")].map((cell) => cell.textContent),
    seen: article.querySelector(".seen img").naturalWidth,
  })));
}

function give(page, kind, target) {
  const bytes = [...fs.readFileSync(image)];
  return page.evaluate(([name, content, id]) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(content)], "given.png", { type: "image/png" }));
    const event = name === "paste"
      ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
      : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
    document.getElementById(id).dispatchEvent(event);
  }, [kind, bytes, target]);
}

async function shot(page, name) {
  if (folder) await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
}

async function main() {
  const browser = await chromium.launch({
    executablePath,
    args: ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
  });
  const page = await opened(browser, { viewport: { width: 1100, height: 800 }, colorScheme: "light" });
  seen.upload = await answered(page, () => page.getByLabel("Choose a file").setInputFiles(image));
  seen.compared = await answered(page, () => page.getByLabel("Compare with").selectOption({ index: 2 }));
  await page.locator("#columns article").nth(1).waitFor();
  seen.difference = await page.locator("#difference").textContent();
  seen.card = await page.locator("#card").textContent();
  await shot(page, "serving-page");
  seen.paste = await answered(page, () => give(page, "paste", "drop"));
  seen.drop = await answered(page, () => give(page, "drop", "drop"));
  await page.getByRole("button", { name: "Use the camera" }).click();
  await page.waitForFunction(() => document.getElementById("video").videoWidth > 0);
  seen.camera = await answered(page, () => page.getByRole("button", { name: "Take the image" }).click());
  await page.getByRole("button", { name: "Stop the camera" }).click();

  seen.unnamed = await page.evaluate(() => [...document.querySelectorAll("input, select, button, video, img")]
    .filter((e) => !e.closest("[hidden]") && !(e.labels?.length || e.textContent || e.alt || e.ariaLabel))
    .map((e) => e.outerHTML));

  const phone = await opened(browser, { viewport: { width: 390, height: 844 }, colorScheme: "dark" });
  seen.tabs = [];
  for (let i = 0; i < 5; i += 1) {
    await phone.keyboard.press("Tab");
    seen.tabs.push(await phone.evaluate(() => document.activeElement.id));
  }
  await answered(phone, () => phone.getByLabel("Choose a file").setInputFiles(image));
  seen.overflow = await phone.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  seen.ground = await phone.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await shot(phone, "serving-page-phone-dark");

  seen.before_refusal = [...seen.errors]; // the browser itself notes every answer of 400
  await page.getByLabel("Choose a file").setInputFiles(noImage);
  await page.waitForFunction(() => document.getElementById("problem").textContent);
  seen.problem = await page.getByRole("alert").textContent();
  await browser.close();
  console.log(JSON.stringify(seen));
}

main().catch((error) => { console.error(error); process.exit(1); });
