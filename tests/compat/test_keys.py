from __future__ import annotations

import pytest

from solo.args.fields import walk
from solo.args.schema import PretrainCfg
from solo.compat.keys import DEAD, MOVED, modernise


@pytest.mark.parametrize(
    ("written", "policy"),
    [
        ("standard", "standard"),
        ("HEX_fixed", "fixed"),
        ("hex_FIXED", "fixed"),
        ("HEX_adaptive", "adaptive"),
        ("Hex_adaptive", "adaptive"),
        ("adaptive", "adaptive"),
        ("combined_adaptive", "adaptive"),
        ("superclass_labels", "superclass"),
    ],
)
def test_types(written, policy):
    modern = modernise({"type": written})
    assert modern.values == {"hex": {"policy": policy}}
    assert modern.spelled == {"hex.policy": "type"}
    assert modern.notes == modern.problems == []


def test_acl_is_fixed_and_says_so():
    modern = modernise({"type": "ACL"})
    assert modern.values["hex"]["policy"] == "fixed"
    assert modern.notes[0][0] == "type" and "HEX_fixed" in modern.notes[0][1]


@pytest.mark.parametrize("written", ["representation", "HEX_adaptve"])
def test_unknown_types_are_refused(written):
    (problem,) = modernise({"type": written}).problems
    assert problem[0] == "hex.policy"
    assert written in problem[1] and "standard, HEX_fixed, HEX_adaptive, superclass" in problem[1]


def test_vicreg_simclr_is_info_nce_blended_in_and_says_so():
    modern = modernise({"type": "vicreg_simclr"})
    assert modern.values["hex"]["policy"] == "infonce" and modern.problems == []
    assert modern.notes[0][0] == "type" and "alpha" in modern.notes[0][1]


def test_null_takes_a_key_of_the_base_recipe_away_without_a_note():
    modern = modernise({"method": "vicreg", "method_kwargs": {"temperature": None, "proj_output_dim": 3}})
    assert modern.values["method_kwargs"] == {"proj_output_dim": 3} and modern.notes == []
    assert len(modernise({"method": "vicreg", "method_kwargs": {"temperature": 0.1}}).notes) == 1


def test_hex_words_move():
    old = {word: 1 for word in MOVED if word not in ("type", "warmm_epoch")}
    assert modernise(old).values == {"hex": dict.fromkeys((MOVED[word].split(".")[1] for word in old), 1)}
    assert modernise({"warmm_epoch": 3}).values == {"hex": {"warm_epoch": 3}}


def test_targets_exist():
    keys = {name for name, _ in walk(PretrainCfg)}
    assert set(MOVED.values()) <= keys
    assert not set(DEAD) & keys


def test_both_spellings_must_agree():
    assert modernise({"type": "HEX_adaptive", "hex": {"policy": "adaptive"}}).problems == []
    (problem,) = modernise({"type": "HEX_adaptive", "hex": {"policy": "fixed"}}).problems
    assert problem[0] == "type" and "disagree" in problem[1]
    (problem,) = modernise({"warm_epoch": 3, "warmm_epoch": 4}).problems
    assert "warm_epoch=3" in problem[1]


def test_dead_keys_are_dropped_with_a_note():
    dead = {
        "ntasks-per-node": 1,
        "dali": {"device": "gpu"},
        "checkpoint": {"save_constant": True, "frequency": 3},
        "data": {"format": "dali", "dataset": "imagenet"},
        "method": "simclr",
        "method_kwargs": {"temperature": 0.1, "decoder_depth": 8, "base_tau_momentum": 0.99},
    }
    modern = modernise(dead)
    assert modern.values == {
        "checkpoint": {"frequency": 3},
        "data": {"format": "image_folder", "dataset": "imagenet"},
        "method": "simclr",
        "method_kwargs": {"temperature": 0.1},  # simclr reads it
    }
    assert {key for key, _ in modern.notes} == {
        "ntasks-per-node",
        "dali",
        "checkpoint.save_constant",
        "data.format",
        "method_kwargs.decoder_depth",
        "method_kwargs.base_tau_momentum",
    }


def test_enabled_of_an_augmentation_is_not_read():
    entry = {
        "rrc": {"enabled": False},
        "gaussian_blur": {"enabled": False, "prob": 0.5},
        "grayscale": {"enabled": True},
    }
    modern = modernise({"augmentations": [entry]})
    assert modern.values["augmentations"] == [
        {"rrc": {"enabled": False}, "gaussian_blur": {"prob": 0.5}, "grayscale": {}}
    ]
    assert [key for key, _ in modern.notes] == ["augmentations[0].gaussian_blur.enabled"]


def test_pure_and_twice_is_once():
    old = {"type": "ACL", "beta": 2, "hex": {"alpha": 0.2}, "dali": {}}
    once = modernise(old)
    assert old["type"] == "ACL" and "dali" in old
    twice = modernise(once.values)
    assert twice.values == once.values and twice.notes == []


@pytest.mark.parametrize(
    "strange", [{"hex": 3, "type": "standard"}, {"augmentations": 3}, {"method_kwargs": "x"}, {"type": 3}]
)
def test_strange_shapes_are_left_to_the_check(strange):
    assert modernise(strange).values
