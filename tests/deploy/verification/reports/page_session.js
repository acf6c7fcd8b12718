// node page_session.js PAGE.html CHROMIUM WIDTH: what a page of this width cuts off, as JSON.
const { chromium } = require("playwright-core");

(async () => {
  const [page, browser, width] = process.argv.slice(2);
  const opened = await chromium.launch({ executablePath: browser, args: ["--no-sandbox"] });
  // a window of headless Chromium is never narrower than 500 px, a viewport is
  const tab = await opened.newPage({ viewport: { width: Number(width), height: 900 } });
  await tab.goto(`file://${page}`);
  // on paper: dark letters although the screen is dark, and what is folded there
  await tab.emulateMedia({ media: "print", colorScheme: "dark" });
  const printed = await tab.evaluate(() => ({
    ink: getComputedStyle(document.body).color,
    folded: [...document.querySelectorAll("details > :not(summary)")]
      .filter((element) => !element.checkVisibility({ contentVisibilityAuto: true })).length,
  }));
  await tab.emulateMedia({ media: "screen", colorScheme: "light" });
  const seen = await tab.evaluate(() => {
    for (const details of document.querySelectorAll("details")) details.open = true;
    const shown = [...document.querySelectorAll("figure svg, td, dd, h1, code, img")]
      .map((element) => [element, element.getBoundingClientRect()])
      .filter(([, box]) => box.width > 0);
    return {
      overflow: document.documentElement.scrollWidth - innerWidth,
      cut: shown.filter(([, box]) => box.right > innerWidth + 1).map(([e]) => e.outerHTML.slice(0, 80)),
      charts: shown.filter(([e]) => e.matches("figure svg")).length,
      letters_px: Math.min(...[...document.querySelectorAll("figure svg text")]
        .map((text) => text.getBoundingClientRect().height).filter((height) => height > 0)),
    };
  });
  console.log(JSON.stringify({ ...seen, printed }));
  await opened.close();
})();
