"""Settings of the methods that learn from labels: what doesn't go together is said in one line."""

from __future__ import annotations

import pytest

from solo.args.compose import compose
from solo.args.parse import parse
from solo.args.recipes import find_recipe
from solo.args.schema import PretrainCfg
from solo.errors import ConfigError


def parsed(recipe, *words, for_run=False):
    values, origins = compose(find_recipe(["scripts/pretrain/fashion_mnist", f"{recipe}.yaml"]), list(words))
    return parse(values, PretrainCfg, origins, for_run=for_run).values


def test_the_hierarchical_sampler_is_the_default_where_levels_are_compared():
    for recipe in ("himulcon", "hicone", "himulcone"):
        assert parsed(recipe)["data"]["sampler"] == "hierarchical"
    assert parsed("himulcone", "data.sampler=random")["data"]["sampler"] == "random"
    assert parsed("himulcone", "optimizer.batch_size=2")["data"]["sampler"] == "random"
    assert parsed("supcon")["data"]["sampler"] == "random"


@pytest.mark.parametrize(
    ("recipe", "words", "message"),
    [
        ("himulcone", ["method_kwargs.granularity=layer", "method_kwargs.pairs=cumulative"], "pairs='cumulative' goes"),
        ("himulcone", ["method_kwargs.granularity=layer", "method_kwargs.instance=False"], "instance=False goes with"),
        ("himulcon", ["method_kwargs.level_penalty=[1,2]"], "must be 3 numbers >= 0, the labels' and the image's"),
        ("himulcon", ["method_kwargs.level_penalty=[1,-2,1]"], "must be 3 numbers >= 0"),
        ("himulcone", ["method_kwargs.level_penalty=pow2"], "method_kwargs.level_penalty='pow2'"),
        ("hicone", ["method_kwargs.level_penalty=exp2"], "does nothing in hicone; take himulcon or himulcone"),
        ("hex_himulcon", ["method_kwargs.granularity=layer"], "goes with method_kwargs.granularity=pair only"),
        ("hex_himulcon", ["hex.variant=release"], "'release' is no loss of method=himulcon; take reweight"),
        ("himulcone", ["type=DCL"], "is no loss of method=himulcone; take adaptive, fixed or superclass"),
        (
            "crossentropy",
            ["data.label_fraction=0"],
            "nothing to learn from; take one that needs none",
        ),
        ("simclr", ["finetune_layers=[layer4]"], "say where from, for example finetune_from=torchvision/resnet50"),
        ("simclr", ["hex.named=True"], "hex.named"),
    ],
)
def test_refused(recipe, words, message):
    with pytest.raises(ConfigError) as refusal:
        parsed(recipe, *words)
    assert message in str(refusal.value)


def test_a_missing_file_of_weights_is_refused_before_anything_is_loaded():
    with pytest.raises(ConfigError, match="finetune_from='nowhere.pth' does not exist; give a file with weights"):
        parsed("himulcone", "finetune_from=nowhere.pth", for_run=True)
    assert parsed("himulcone", "finetune_from=timm/resnet18", for_run=True)["finetune_from"] == "timm/resnet18"


def test_named_needs_a_label_tree():
    assert parsed("hex", "hex.named=True")["hex"]["named"]
    values, origins = compose(find_recipe(["scripts/pretrain/digits", "hex.yaml"]), ["hex.named=True"])
    with pytest.raises(ConfigError, match="hex.named=True needs a label tree, and digits has one level only"):
        parse(values, PretrainCfg, origins)
