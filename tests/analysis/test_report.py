"""The report in a browser: no console error, every plot drawn, tables sort, themes switch, it fits a phone."""

from __future__ import annotations

import json
import re

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from solo.analysis.analyze import Options, analyze
from solo.analysis.drawing import as_plotly, numbers
from solo.analysis.figure import Pictures
from tests.analysis.browsing import empty_plots, opened, sorted_both_ways
from tests.analysis.planted import subject


def pixels(row):
    return Image.fromarray(np.full((8, 8), row % 256, np.uint8))


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    runs = [subject("one & <b>", (0.2, 1.0)), subject("two", (0.2, 0.9), collapsed=(0, 1))]
    options = Options(title="Planted", embedding="pca", max_points=100, png=False)
    return analyze(runs, tmp_path_factory.mktemp("report"), options, pixels)


def test_it_is_one_file_without_a_network(outcome):
    file = outcome.files[0]
    text = file.read_text()
    assert file.stat().st_size < 15 * 2**20
    body = text.replace(re.search(r"<script>[^<]*plotly\.js.*?</script>", text, re.DOTALL)[0], "")
    assert len(text) - len(body) > 1e6  # plotly's own, once
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", body) and "url(" not in body and "@import" not in body
    words = re.sub(r'<script type="application/json".*?</script>', "", body, flags=re.DOTALL)
    assert "one &amp; &lt;b&gt;" in words and '<b>"' not in words
    (data,) = re.findall(r'<script type="application/json" id="panels">(.*?)</script>', body)
    titles = [panel["layout"]["title"]["text"] for panel in json.loads(data)]
    assert "one &amp; &lt;b&gt;, before training" in titles  # plotly reads them as HTML
    figures = {figure.key: figure for figure in outcome.figures}
    for key, figure in figures.items():
        assert f'<article id="{key}">' in body
        assert figure.protocol and figure.caption
    assert body.count('class="protocol"') == len(figures) + body.count("<table>")


EVIL = ("<!--<script>", "</script><!-- ", "a\u2028b\x1b[2J\udcff\u202e", "x" * 100_000, "'\"`${1}", "]]>&amp;", "")


@pytest.mark.fault(5, "classes named `<!--<script>`, `</script>`, ... in a report", "shown as text; the page works")
@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", EVIL)
def test_no_name_reaches_beyond_its_text(name, tmp_path):
    runs = [subject(name, (0.2, 1.0), words=name), subject("two", (0.2, 0.9), words=name)]
    text = analyze(runs, tmp_path, Options(embedding="none", png=False)).files[0].read_text(encoding="utf-8")
    page = re.sub(r"<script>[^<]*plotly\.js.*?</script>", "", text, flags=re.DOTALL)
    assert len(page) < 3 * 2**20 and not re.search(r"<!--|<script>[a-z<]|[\x00-\x08\x1b\u2028\u202e]", page)
    (data,) = re.findall(r'<script type="application/json" id="panels">(.*?)</script>', page)
    assert "<" not in data and len(json.loads(data)) > 10


def test_every_panel_is_valid_for_plotly(outcome):
    panels = [panel for figure in outcome.figures for panel in figure.panels if not isinstance(panel, Pictures)]
    for panel in panels:
        go.Figure(as_plotly(panel))  # refuses unknown properties and values
    assert len(panels) > 30


def test_numbers_for_json():
    assert numbers([1.0, np.nan, 0.123456, -np.inf, 1e-9, 12345.6]) == [1, None, 0.1235, None, 1e-9, 12350]
    assert numbers(np.array([2, 3])) == [2, 3]


def test_in_a_browser(outcome, browser):
    with opened(browser, outcome.files[0]) as (page, said):
        assert page.locator(".plot").count() > 30 and empty_plots(page) == []
        assert page.eval_on_selector_all("img", "all => all.every(one => one.naturalWidth > 0)")

        # both themes: background and the plots' text change, and come back
        colours = (
            "() => [getComputedStyle(document.body).backgroundColor, document.querySelector('.plot').layout.font.color]"
        )
        light = page.evaluate(colours)
        page.click("#theme")
        dark = page.evaluate(colours)
        assert dark[0] != light[0] and dark[1] != light[1] and page.inner_text("#theme") == "Light theme"
        page.click("#theme")
        assert page.evaluate(colours) == light

        # sorting: numbers as numbers, both ways, names as words
        for column, convert in (("worst mixing", float), ("run", str)):
            orders = sorted_both_ways(page, "overview", column, convert)
            assert sorted(orders[0]) in orders and sorted(orders[0], reverse=True) in orders

        # a name of the legend switches its lines off in all panels of the figure, not elsewhere
        page.click('#knn .chips button[data-name="two"]')
        shown = """id => [...document.querySelectorAll(`#${id} .plot`)]
            .flatMap((plot) => plot.data.map((trace) => [trace.name, trace.visible !== false]))"""
        switched = page.evaluate(shown, "knn")
        assert len(switched) == 8 and all(visible == (name != "two") for name, visible in switched)
        assert all(visible for _, visible in page.evaluate(shown, "cosine"))
        assert said == []


@pytest.mark.thorough
def test_on_a_phone(outcome, browser):
    with opened(browser, outcome.files[0], width=380, theme="dark") as (page, _):
        assert page.evaluate("document.documentElement.scrollWidth") == 380  # nothing sticks out
        assert page.get_attribute("html", "data-theme") == "dark"
        widths = page.eval_on_selector_all(".plot", "divs => divs.map(div => div.getBoundingClientRect().width)")
        assert min(widths) > 280 and max(widths) < 380
