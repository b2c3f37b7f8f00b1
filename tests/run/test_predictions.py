"""Probabilities of classes at every level of a tree, against sums written out."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from solo.args.eval_schema import PredictCfg
from solo.errors import UserError
from solo.run.pretrained import predictions
from solo.run.take import predict
from solo.taxonomy import Taxonomy

TREE = Taxonomy(
    ("order", "bird"),
    (("owls", "ducks", "emu"), ("snowy", "barn", "mallard", "teal")),
    ((0, 0, 1, 1),),
)  # the emu is a class itself
LOGITS = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
CLASSES = list(TREE.class_names)


def test_a_level_is_the_sum_of_its_classes():
    found = predictions(LOGITS, TREE)
    p = LOGITS.softmax(dim=1)
    orders = found.at("order")
    for node, below in enumerate((["snowy", "barn"], ["mallard", "teal"], ["emu"])):
        torch.testing.assert_close(orders[:, node], sum(p[:, CLASSES.index(name)] for name in below))
    torch.testing.assert_close(orders.sum(dim=1), torch.ones(20))
    torch.testing.assert_close(found.at("bird").sum(dim=1), 1 - p[:, CLASSES.index("emu")])


def test_best_and_paths():
    found = predictions(LOGITS, TREE, k=2)
    p = LOGITS.softmax(dim=1)
    for row, (best, path) in enumerate(zip(found.best, found.paths(), strict=True)):
        order = p[row].argsort(descending=True)[:2].tolist()
        assert [name for name, _ in best] == [CLASSES[c] for c in order]
        assert [value for _, value in best] == pytest.approx(p[row, order].tolist())
        top = max(range(3), key=lambda node, row=row: float(found.at("order")[row, node]))
        assert path[0] == TREE.names[0][top] and len(path) == (1 if path[0] == "emu" else 2)
        assert path[0] == "emu" or TREE.parents[0][TREE.names[1].index(path[1])] == top
    assert {name for best in predictions(LOGITS, TREE, k=9, level="order").best for name, _ in best} == set(
        TREE.names[0]
    )


def test_the_careful_ones_are_those_of_the_least_expected_height():
    found = dataclasses.replace(predictions(LOGITS, TREE, k=2), careful=True)
    changed = 0
    for row, best in enumerate(found.best):
        p = found.probabilities[row].tolist()
        risk = {k: sum(p[j] * TREE.lca_height(k, j) for j in range(5)) for k in range(5)}
        order = sorted(risk, key=lambda k, risk=risk: risk[k])[:2]
        assert [(name, pytest.approx(p[CLASSES.index(name)])) for name in map(CLASSES.__getitem__, order)] == best
        changed += order[0] != max(range(5), key=p.__getitem__)
    assert changed  # the most probable class isn't always the careful one
    inside = dataclasses.replace(predictions(LOGITS, TREE, k=1, within="emu"), careful=True)
    assert {name for best in inside.best for name, _ in best} == {"emu"}


@pytest.mark.parametrize("within", ["owls", "order:owls"])
def test_within_a_node(within):
    found = predictions(LOGITS, TREE, within=within)
    owls = [CLASSES.index(name) for name in ("snowy", "barn")]
    torch.testing.assert_close(found.probabilities[:, owls], LOGITS[:, owls].softmax(dim=1))
    torch.testing.assert_close(found.at("order"), torch.tensor([1.0, 0, 0]).expand(20, 3))
    assert all(path[0] == "owls" for path in found.paths())


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"k": 0}, "at least 1"),
        ({"level": "genus"}, "choose one of order, bird"),
        ({"within": "cats"}, "owls, ducks, emu"),
    ],
)
def test_wrong_words(words, match):
    with pytest.raises(UserError, match=match):
        predictions(LOGITS, TREE, **words)


def test_crm_chooses_among_classes():
    cfg = PredictCfg(run="run", images="images", out="out.csv", level="order", decision="crm")
    with pytest.raises(UserError, match="level='order' has no use with decision=crm.*leave one of them out"):
        predict(cfg)
