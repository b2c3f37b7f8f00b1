"""Which negatives are hierarchy negatives."""

from __future__ import annotations

import pytest
import torch

from solo.hex import AdaptivePercentile, Constant, EveryNegative, FixedThreshold, NoNegative, Superclass
from solo.hex.policy import row_quantile
from solo.losses import Pairs
from solo.losses import pairs as pairs_module


def make_pairs(n=20, d=6, seed=0, groups=None, dtype=torch.float64):
    torch.manual_seed(seed)
    return Pairs.from_ids(torch.randn(n, d, dtype=dtype), torch.arange(n) % (n // 2), groups)


def select(policy, pairs, epoch=0):
    selector = policy.selector(pairs, epoch, 10)
    return torch.cat([selector(pairs.similarity(rows), rows) for rows in pairs.blocks()])


@pytest.mark.parametrize("quantile", [0.0, 0.25, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 101])
def test_row_quantile_is_torchs_nearest(quantile, n):
    torch.manual_seed(n)
    rows = torch.randn(4, n)
    expected = torch.quantile(rows, quantile, dim=1, interpolation="nearest")
    assert torch.equal(row_quantile(rows, quantile), expected)


def test_adaptive_threshold_is_the_mean_of_the_rows_quantiles(monkeypatch):
    pairs = make_pairs(n=200)
    s = pairs.anchors @ pairs.keys.T
    expected = torch.quantile(s, 0.99, dim=1, interpolation="nearest").mean()
    policy = AdaptivePercentile(0.99, warm_epoch=0)
    monkeypatch.setitem(pairs_module.BLOCK_ELEMENTS, "cpu", 3000)
    torch.testing.assert_close(policy.selector(pairs, 0, 1).threshold, expected, rtol=1e-13, atol=0)
    assert torch.equal(select(policy, pairs), s > expected)


def test_fixed_scales_rows_as_the_formula():
    pairs = make_pairs()
    s = pairs.anchors @ pairs.keys.T
    low = s.min(dim=1, keepdim=True).values
    assert torch.equal(select(FixedThreshold(Constant(0.7)), pairs), (s - low) / (1 - low) > 0.7)
    assert torch.equal(select(FixedThreshold(Constant(0.7), similarity="cosine"), pairs), s > 0.7)


def test_fixed_on_identical_rows_selects_nothing():
    pairs = Pairs.from_ids(torch.ones(6, 3), torch.arange(6))
    assert not select(FixedThreshold(Constant(0.9)), pairs).any()


def test_superclass_reads_the_labels():
    groups = torch.tensor([0, 1, -1, 0] * 5)
    chosen = select(Superclass(), make_pairs(groups=groups))
    for i in range(20):
        for j in range(20):
            assert chosen[i, j] == (groups[i] == groups[j] and groups[i] >= 0)


def test_every_negative_and_none():
    assert select(EveryNegative(), make_pairs()).all()
    assert not select(NoNegative(), make_pairs()).any()


@pytest.mark.parametrize(
    "policy",
    [
        AdaptivePercentile(warm_epoch=3),
        FixedThreshold(Constant(0.5), warm_epoch=3),
        Superclass(warm_epoch=3),
        EveryNegative(warm_epoch=3),
        NoNegative(warm_epoch=3),
    ],
)
def test_warm_up(policy):
    pairs = make_pairs(groups=torch.zeros(20, dtype=torch.long))
    assert policy.selector(pairs, 2, 10) is None
    assert policy.selector(pairs, 3, 10) is not None


def test_nothing_is_stored():
    policy, pairs = FixedThreshold(Constant(0.5)), make_pairs()
    assert torch.equal(select(policy, pairs, epoch=5), select(policy, pairs, epoch=5))
    with pytest.raises(AttributeError):
        policy.warm_epoch = 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AdaptivePercentile(quantile=99), "quantile"),
        (lambda: FixedThreshold(Constant(0.5), similarity="euclid"), "similarity"),
    ],
)
def test_bad_settings_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_with_a_queue_the_row_is_the_queue():
    torch.manual_seed(0)
    pairs = Pairs.with_queue(torch.randn(4, 3), torch.randn(4, 3), torch.randn(50, 3))
    s = (pairs.anchors @ pairs.keys.T)[:, 4:]
    expected = torch.quantile(s, 0.9, dim=1, interpolation="nearest").mean()
    torch.testing.assert_close(AdaptivePercentile(0.9, 0).selector(pairs, 0, 1).threshold, expected)
    low = s.min(dim=1, keepdim=True).values
    assert torch.equal(select(FixedThreshold(Constant(0.7)), pairs)[:, 4:], s > low + 0.7 * (1 - low))
