"""Whole rows, as devices compute them, against lists of pairs: the same loss, gradient and statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from solo.hex import AdaptivePercentile, Superclass
from solo.hex.loss import HexDenominator, hex_nce
from solo.losses import info_nce, pairs
from solo.losses.hierarchical import hierarchical_contrastive_loss
from solo.losses.hierarchical_rows import numbered
from solo.losses.pairs import Pairs
from solo.nn.memory import SinkhornKnopp

GENERATOR = torch.Generator().manual_seed(0)
Z = torch.randn(24, 6, dtype=torch.float64, generator=GENERATOR)
IMAGES = torch.arange(12).repeat(2)
CLASSES = torch.tensor([0, 0, 1, 1, 2, 3, 4, 5, 0, 6, 7, 8]).repeat(2)
ALONE = torch.cat([CLASSES[:12], torch.arange(100, 112)])  # rows without any positive
TREE = [[0, 0], [0, 1], [0, 1], [1, 2], [1, -1], [1, 3], [-1, -1], [0, 0], [1, 2], [1, 3], [2, 4], [0, 1]]
POLICIES = {"adaptive": AdaptivePercentile(0.7, 0), "superclass": Superclass()}


def agree(loss: Callable[[Tensor], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for listed in (True, False):
        monkeypatch.setitem(pairs.LISTED, "cpu", listed)
        z = Z.clone().requires_grad_()
        value = loss(z)
        value, stats = value if isinstance(value, tuple) else (value, {})
        found.append((value.detach(), torch.autograd.grad(value, z)[0], stats))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("positives", ["outside", "inside"])
@pytest.mark.parametrize("ids", [IMAGES, CLASSES, ALONE], ids=["images", "classes", "alone"])
def test_info_nce_and_hex(positives: Any, ids: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    agree(lambda z: info_nce(Pairs.from_ids(z, ids), 0.3, positives), monkeypatch)
    for policy in POLICIES.values():
        for tau_plus in (0.0, 0.1):
            words: dict[str, Any] = {"temperature": 0.3, "tau_plus": tau_plus, "positives": positives, "epoch": 3}
            agree(lambda z, p=policy, w=words: hex_nce(Pairs.from_ids(z, ids, CLASSES % 3), p, **w), monkeypatch)


@pytest.mark.parametrize("partners", ["lca", "cumulative"])
@pytest.mark.parametrize("kind", ["himulcon", "hicone", "himulcone"])
@pytest.mark.parametrize("hex_denominator", [False, True])
def test_losses_of_a_label_tree(
    kind: Any, partners: Any, hex_denominator: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(z: Tensor) -> Tensor:
        rows = Pairs.from_ids(z, IMAGES)
        selector: Any = POLICIES["adaptive"].selector(rows, 3, 5)
        made = HexDenominator(selector, 0.3, 1.0, 0.1) if hex_denominator else None
        return hierarchical_contrastive_loss(
            rows, torch.tensor(TREE * 2), kind, 0.3, "released", partners, "pair", made
        )

    agree(loss, monkeypatch)


def test_ranks_and_a_queue_that_is_not_full() -> None:
    values = torch.randint(-5, 9, (40,), generator=GENERATOR)
    assert torch.equal(numbered(values), torch.unique(values, return_inverse=True)[1])
    scores, counts = torch.randn(9, 4, generator=GENERATOR), torch.arange(9) % 3 != 1
    balance = SinkhornKnopp()
    torch.testing.assert_close(balance(scores, counts)[counts], balance(scores[counts]))
    assert balance(scores, counts)[~counts].abs().sum() == 0
