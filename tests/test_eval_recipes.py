"""Every YAML of `scripts/knn` and `scripts/umap` composes, is valid, and starts with the command that runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from solo.args.compose import compose
from solo.args.eval_schema import KnnCfg, UmapCfg
from solo.args.parse import parse
from solo.args.recipes import find_recipe

SCRIPTS = Path(__file__).parents[1] / "scripts"
SCHEMAS = {"knn": KnnCfg, "umap": UmapCfg}
DATA = ["digits", "fashion_mnist", "cifar10", "cifar100", "imagenet100", "imagenet", "custom"]


@pytest.mark.parametrize("command", SCHEMAS)
@pytest.mark.parametrize("data", DATA)
def test_recipe(command, data, tmp_path):
    folder = SCRIPTS / command / data
    first = (folder / f"{command}.yaml").read_text().splitlines()[0]
    start = f"# python main_{command}.py scripts/{command}/{data} {command}.yaml pretrained_feature_extractor=PATH"
    assert first.startswith(start)
    (tmp_path / "some_class").mkdir()
    words = ["pretrained_feature_extractor=x.ckpt", *(f"data.{key}_path={tmp_path}" for key in ("train", "val"))]
    values, origins = compose(find_recipe([str(folder), command]), words if data == "custom" else words[:1])
    parsed = parse(values, SCHEMAS[command], origins)
    assert parsed.notes == [] and parsed.values["data"]["dataset"] == data
    assert parsed.values["name"] == f"{command}-{data}"


def test_nothing_else_is_there():
    for command in SCHEMAS:
        files = {str(path.relative_to(SCRIPTS / command)) for path in (SCRIPTS / command).rglob("*.yaml")}
        assert files == {"common.yaml", *(f"{data}/{command}.yaml" for data in DATA)}
