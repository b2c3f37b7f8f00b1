"""Every YAML under `scripts/` composes, is valid, and starts with the command that runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from solo.args.compose import compose, find_recipe
from solo.args.parse import parse
from solo.args.schema import LinearCfg, PretrainCfg

SCRIPTS = Path(__file__).parents[1] / "scripts"
GROUPS = ("augmentations", "wandb")
SCHEMAS = {"pretrain": PretrainCfg, "linear": LinearCfg}
RECIPES = sorted(path for path in SCRIPTS.rglob("*.yaml") if path.parent.name not in GROUPS)


def read(path):
    phase = path.relative_to(SCRIPTS).parts[0]
    words = ["pretrained_feature_extractor=some.ckpt"] if phase == "linear" else []
    values, origins = compose(find_recipe([str(path.parent), path.name]), words)
    return parse(values, SCHEMAS[phase], origins)


def test_there_are_recipes():
    names = {str(path.relative_to(SCRIPTS)) for path in RECIPES}
    for data in ("digits", "fashion_mnist", "cifar10", "cifar100"):
        wanted = {f"pretrain/{data}/simclr.yaml", f"pretrain/{data}/hex.yaml", f"linear/{data}/linear.yaml"}
        assert wanted <= names


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(SCRIPTS)))
def test_recipe(path):
    folder, file = path.parent.relative_to(SCRIPTS.parent), path.name
    program = f"main_{path.relative_to(SCRIPTS).parts[0]}.py"
    first = path.read_text().splitlines()[0]
    assert first.startswith(f"# python {program} {folder} {file}")
    parsed = read(path)
    assert parsed.notes == []
    assert parsed.values["data"]["dataset"] == path.parent.name
    assert parsed.values["checkpoint"]["enabled"]


@pytest.mark.parametrize(
    "path", [path for path in RECIPES if path.name == "hex.yaml"], ids=lambda path: path.parent.name
)
def test_hex_differs_from_its_base_in_hex_only(path):
    hex_values, base = read(path).values, read(path.with_name("simclr.yaml")).values
    assert hex_values["hex"]["policy"] == "adaptive" and base["hex"]["policy"] == "standard"
    differing = {key for key in hex_values if hex_values[key] != base[key]}
    assert differing == {"name", "hex"}
