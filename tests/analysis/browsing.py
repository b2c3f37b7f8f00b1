"""What the tests do with a report in a browser."""

from __future__ import annotations

from contextlib import contextmanager

_SECONDS = 120_000  # for a page of 5 MB on a busy machine


@contextmanager
def opened(browser, file, width=1280, theme="light"):
    """A page with every plot drawn, and what it complained about: console, scripts, requests beyond the file."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    page.goto(file.as_uri(), timeout=_SECONDS)
    page.wait_for_selector("html[data-ready=true]", timeout=_SECONDS)
    page.evaluate(_DRAW_ALL)
    yield page, said
    page.close()


# Plots are drawn when they come near the window.
_DRAW_ALL = """async () => {
  for (const div of document.querySelectorAll(".plot")) {
    div.scrollIntoView({ behavior: "instant" });
    while (!div.dataset.drawn) await new Promise((done) => setTimeout(done, 20));
  }
}"""

# Traces with numbers of which nothing lies inside the axes: no dot, no line, no area, no picture of a matrix.
_BARE = """() => [...document.querySelectorAll(".plot")].flatMap((div) => {
  const inside = div.querySelector(".cartesianlayer").getBoundingClientRect();
  const paints = (mark) => {
    const box = mark.getBoundingClientRect();
    const path = mark.tagName === "image" ? mark.href.baseVal : mark.getAttribute("d") || "";
    return path.length > 9 && box.width + box.height > 1 && box.right >= inside.left && box.left <= inside.right;
  };
  const where = `${div.closest("article").id}, ${div.layout.title.text}`;
  const named = div._fullData.filter((trace) => trace.legendgroup);  // else, beside dots: what joins equal values
  const traces = named.length ? named : div._fullData;
  const filled = traces.filter((trace) => (trace.z ? trace.z.flat() : trace.y).some((y) => y !== null));
  const bare = filled.filter((trace) => {
    const marks = div.querySelectorAll(`.trace${trace.uid} :is(.point, .js-line, .js-fill), .heatmaplayer image`);
    return ![...marks].some(paints);
  });
  return [...(filled.length ? [] : [`${where}: no numbers`]), ...bare.map((trace) => `${where}: ${trace.name}`)];
})"""


def empty_plots(page):
    """The plots without numbers, and the traces without a mark, in words."""
    return page.evaluate(_BARE)


def colours(page):
    """The page's background and every plot's names of axes and ticks, as the browser paints them."""
    return page.evaluate(
        """() => {
          const words = [...document.querySelectorAll(".plot .xtick text, .plot .ytick text, .plot .xtitle")];
          const fills = words.map((text) => getComputedStyle(text).fill);
          return [getComputedStyle(document.body).backgroundColor, ...fills];
        }"""
    )


def sorted_both_ways(page, table, column, convert=float):
    """Touch the heading `column` of `table` twice; the values of the column after each."""
    found = page.locator(f"#table-{table}")
    heads = [text.strip() for text in found.locator("thead button").all_inner_texts()]
    orders = []
    for _ in range(2):
        found.locator("thead button").nth(heads.index(column)).click()
        cells = found.locator("tbody tr").evaluate_all(
            f"rows => rows.map(row => row.cells[{heads.index(column)}].dataset.value)"
        )
        orders.append([convert(cell) for cell in cells if cell != ""])
    assert found.locator("th[aria-sort]").count() == 1
    return orders
