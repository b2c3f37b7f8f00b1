"""Two real runs, SimCLR and HEX, from the recipes to the page: what a user types, and what the browser then shows.

Fashion-MNIST where Debian's package has installed it, else scikit-learn's digits, which are always there.
"""

from __future__ import annotations

import json
import re

import pytest

from solo import cli
from solo.data.sources.small import DEBIAN_FASHION_MNIST
from tests.analysis.browsing import colours, empty_plots, opened, sorted_both_ways

pytestmark = pytest.mark.thorough

FASHION = DEBIAN_FASHION_MNIST.is_dir()
DATASET = "fashion_mnist" if FASHION else "digits"
FINE = "class" if FASHION else "digit"
SHARE = ("data.fraction=0.02", "limit_val_batches=4") if FASHION else ("data.fraction=0.7", "limit_val_batches=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of the analysis."""
    root = tmp_path_factory.mktemp("runs")
    here = ("accelerator=cpu", "data.num_workers=0")
    tiny: tuple[str, ...] = ("backbone.kwargs.width=8", "precision=32", "progress=off")
    tiny += ("max_epochs=2", "scheduler.warmup_epochs=1", "optimizer.batch_size=64")
    every_epoch = ("checkpoint.frequency=1", "checkpoint.keep_prev=true")
    sources = []
    for recipe, own in (("simclr", ()), ("hex", ("warm_epoch=0",))):
        words = (f"scripts/pretrain/{DATASET}", f"{recipe}.yaml", f"checkpoint.dir={root / recipe}", *own)
        words += (*SHARE, *here, *tiny, *every_epoch)
        assert cli.main(["pretrain", *words]) == 0
        (run,) = (root / recipe / "simclr").iterdir()
        sources.append(run)
    few = (
        "lidar_images=100",
        "lidar_views=3",
        "max_images=600",
        "max_points=200",
        "embedding=pca",
        f"cache_dir={root / 'cache'}",
    )
    words = (f"checkpoint=[{sources[0]},{sources[1]}]", "names=[SimCLR,HEX]", f"output={root / 'report'}")
    assert cli.main(["analyze", *words, *few, *here]) == 0
    return root / "report"


def test_every_analysis_is_there(folder):
    found = json.loads((folder / "analysis.json").read_text())
    assert [run["name"] for run in found["runs"]] == ["SimCLR", "HEX"]
    for run, objective in zip(found["runs"], ("simclr", "simclr, HEX adaptive"), strict=True):
        assert [snapshot["epoch"] for snapshot in run["snapshots"]] == [0, 1, 2]
        assert run["snapshots"][-1]["facts"]["objective"] == objective
        curve = [s["spaces"]["representation"]["knn_acc1"][FINE] for s in run["snapshots"]]
        assert max(curve[1:]) > 40  # of ten classes, after a few steps
    keys = {"knn", "effective-rank", "lidar", "spectrum", "cosine", "cosine-ratio", "cosine-distribution", "threshold"}
    keys |= {"points-all", "points-inside", "tree", "tree-drift"}
    keys |= {"collapse-profile", "confusable", "confusable-examples", "neighbours"}
    assert keys <= {file.stem for file in (folder / "figures").glob("*.png")}
    page = (folder / "report.html").read_text()
    assert keys <= set(re.findall(r'<article id="([^"]+)">', page)) and len(page) < 15 * 2**20


def test_in_a_browser(folder, browser):
    with opened(browser, folder / "report.html") as (page, said):
        assert page.locator(".plot").count() > 30 and empty_plots(page) == []
        assert page.eval_on_selector_all("img", "all => all.filter(one => one.naturalWidth > 0).length") > 50
        assert page.eval_on_selector_all("img", "all => all.every(one => one.naturalWidth > 0)")
        light = colours(page)
        page.click("#theme")
        dark = colours(page)
        assert len(light) == len(dark) > 100 and all(a != b for a, b in zip(light, dark, strict=True))
        assert empty_plots(page) == []
        page.click("#theme")
        assert colours(page) == light
        for column, convert in ((f"kNN, {FINE}", float), ("run", str)):
            orders = sorted_both_ways(page, "overview", column, convert)
            assert sorted(orders[0]) in orders and sorted(orders[0], reverse=True) in orders and len(set(orders[0])) > 1
        assert said == []
        page.evaluate("document.querySelector('#knn .scatterlayer .trace').remove()")
        assert len(empty_plots(page)) == 1  # it would have been noticed


def test_on_a_phone(folder, browser):
    with opened(browser, folder / "report.html", width=380, theme="dark") as (page, said):
        assert page.evaluate("document.documentElement.scrollWidth") == 380  # nothing sticks out
        assert page.get_attribute("html", "data-theme") == "dark"
        assert empty_plots(page) == [] and said == []
