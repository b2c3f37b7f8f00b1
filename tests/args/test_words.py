"""The one reader of command-line words."""

from __future__ import annotations

import pytest

from solo.args.compose import as_word, compose, expand, read_word
from solo.args.eval_schema import KnnCfg
from solo.args.schema import PretrainCfg
from solo.errors import ConfigError

# What Hydra's grammar has no place for, or another meaning.
STRANGE = [
    "runs/simclr/ID/base-ID-ep=0.ckpt",
    "bilder/größe",
    "a b",
    " a ",
    "a,b",
    "[x",
    "[1,2]",
    "{a: 1}",
    "it's",
    "$x",
    "a#b",
    "~/data",
    "(v2)",
    "a;b&c",
    "2024",
    "01",
    "1e3",
    "true",
    "50%",
    "a\\b",
    "\x1b[2J",
    "range(1,3)",
    '"half',
]


@pytest.mark.fault(1, "paths with `=`, umlauts, spaces, commas, brackets, quotes, `$`, `#`, `~`", "taken as they stand")
@pytest.mark.parametrize("text", STRANGE)
@pytest.mark.parametrize(
    ("schema", "key"),
    [
        (PretrainCfg, "data.train_path"),
        (PretrainCfg, "name"),
        (PretrainCfg, "checkpoint.dir"),
        (PretrainCfg, "data.cache_dir"),
        (PretrainCfg, "resume_from_checkpoint"),
        (KnnCfg, "pretrained_feature_extractor"),
        (KnnCfg, "features"),
    ],
)
def test_paths_and_names_are_taken_as_they_stand(schema, key, text):
    assert read_word(f"{key}={text}", schema).value == text
    values, _ = compose(None, [f"{key}={text}"], schema)
    for part in key.split("."):
        values = values[part]
    assert values == text


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("optimizer.lr=1e-3", "optimizer.lr", 1e-3),
        ("++a.b=[1,x]", "a.b", [1, "x"]),
        ("+a={b: 1}", "a", {"b": 1}),
        ("data.train_path='a b'", "data.train_path", "a b"),
        ("data.val_path=null", "data.val_path", None),
        ("name=${method}-x", "name", "${method}-x"),
        ("name=${", "name", "\\${"),
        ("method_kwargs.temperature=a=b", "method_kwargs.temperature", "a=b"),
        ("devices=0,1", "devices", "0,1"),
    ],
)
def test_values(word, key, value):
    found = read_word(word, PretrainCfg)
    assert (found.key, found.value, found.removes) == (key, value, False)


def test_taking_out():
    assert read_word("~a.b").removes and read_word("~a.b=3").removes
    assert compose(None, ["a.b=1", "a.c=2", "~a.b"])[0] == {"a": {"c": 2}}
    with pytest.raises(ConfigError, match="takes out a key that isn't there"):
        compose(None, ["~a.b"])


@pytest.mark.parametrize(
    ("word", "text"),
    [("a", "not key=value"), ("=3", "not key"), ("seed=1,2", "with -m"), (".a=1", "not key")],
)
def test_what_is_no_word(word, text):
    with pytest.raises(ConfigError, match=text):
        read_word(word, PretrainCfg)


def test_sweeps():
    assert expand(["seed=1,2"]).jobs == [["seed=1"], ["seed=2"]]
    assert expand(["name='a,b',c"]).jobs == [["name='a,b'"], ["name=c"]]
    words = ["data.train_path=ü,x", "seed=1,2"]
    assert expand(words).jobs == [["data.train_path=ü,x", "seed=1"], ["data.train_path=ü,x", "seed=2"]]


@pytest.mark.fault(1, "`-m seed=range(1,1000000000)`", "refused at once: at most 1,000 runs")
def test_a_sweep_without_end():
    with pytest.raises(ConfigError, match="more than 1000 runs"):
        expand(["seed=range(1,1000000000)"])


@pytest.mark.parametrize(
    "value", [*STRANGE, "null", "", "'a'", "${x}", None, True, 3, 0.1, 1e-7, ["a,b", 1], {"a": [None]}]
)
def test_words_that_are_written_are_read_again(value):
    word = as_word("user.key", value)
    assert compose(None, [word])[0] == {"user": {"key": value}}
