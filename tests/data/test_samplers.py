from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from torch.utils.data import BatchSampler, Dataset

from solo import distributed
from solo.data.batches.loaders import train_loader
from solo.data.batches.rules import Balanced, BatchRule, Hierarchical, Mixed, PerClass, Random
from solo.data.batches.samplers import RuleSampler, describe, partners, rule_sampler
from solo.errors import UserError
from solo.taxonomy import Taxonomy

SIZE = 24


def ragged(seed: int, images: int = 600, skew: float = 1.5, unknown: float = 0.1) -> tuple[np.ndarray, Taxonomy]:
    """Labels (N, 3) of a random tree in which some branches end early, few classes have most images, some lack one."""
    rng = np.random.default_rng(seed)
    top = int(rng.integers(2, 5))
    middle = rng.integers(0, top, size=int(rng.integers(top, 3 * top)))
    middle[:top] = range(top)
    open_nodes = rng.permutation(len(middle))[: max(1, len(middle) // 2)]
    fine = rng.choice(open_nodes, size=3 * len(open_nodes))
    sizes = [top, len(middle), len(fine)]
    names = tuple(tuple(f"{level}{node}" for node in range(size)) for level, size in enumerate(sizes))
    tree = Taxonomy(("a", "b", "c"), names, (tuple(middle.tolist()), tuple(fine.tolist())))
    share = 1 / np.arange(1, tree.num_classes + 1) ** skew
    labels = np.array(tree.path_table())[rng.choice(tree.num_classes, images, p=share / share.sum())]
    cut = rng.random(images) < unknown
    for row in np.flatnonzero(cut):
        labels[row, int(rng.integers(0, 3)) :] = -1
    return labels, tree


def every_rule(labels: np.ndarray) -> Iterator[BatchRule]:
    yield Random(len(labels))
    yield Hierarchical(labels)
    for level in range(3):
        yield Balanced(labels[:, level])
        yield from (PerClass(labels[:, level], per_class) for per_class in (1, 4, 12))


def epoch(rule: BatchRule, size: int, seed: int = 0) -> np.ndarray:
    return np.array([*rule.batches(size, np.random.default_rng(seed))], dtype=np.int64).reshape(-1, size)


@pytest.mark.parametrize("seed", range(12))
def test_each_rule_makes_the_full_batches_it_promises_and_takes_no_image_twice(seed: int) -> None:
    labels, _ = ragged(seed, images=int(np.random.default_rng(seed).integers(1, 700)))
    for rule, size in itertools.product(every_rule(labels), (12, 24, 120)):
        batches = epoch(rule, size, seed)
        assert len(batches) == rule.count(size)
        assert len(np.unique(batches)) == batches.size
        assert np.array_equal(batches, epoch(rule, size, seed))


def test_hierarchical_leaves_out_less_than_a_batch() -> None:
    labels, _ = ragged(3)
    assert epoch(Hierarchical(labels), 32).size == 600 - 600 % 32


@pytest.mark.parametrize("seed", range(6))
def test_an_anchor_has_a_partner_at_each_level_that_has_one_left(seed: int) -> None:
    """The rule of the paper, followed with loops and the set of unused images."""
    labels, _ = ragged(seed, images=200)
    unused = set(range(200))
    for batch in epoch(Hierarchical(labels), 40, seed).tolist():
        rest = iter(batch)
        for anchor in rest:
            unused.remove(anchor)
            known = int((labels[anchor] >= 0).sum())
            for level in reversed(range(known)):
                same = labels[:, level] == labels[anchor, level]
                if level + 1 < known:
                    same &= labels[:, level + 1] != labels[anchor, level + 1]
                candidates = unused & set(np.flatnonzero(same).tolist())
                partner = next(rest, None) if candidates else None
                if partner is not None:
                    assert partner in candidates
                    unused.remove(partner)


def test_hierarchical_draws_are_uniform() -> None:
    labels = np.array([[0, 0], [0, 1], [0, 2], [0, 2], [1, 3], [1, 3]])
    rule = Hierarchical(labels)
    firsts = np.zeros((6, 6))
    for seed in range(6000):
        anchor, partner, *_ = next(rule.batches(3, np.random.default_rng(seed)))
        firsts[anchor, partner] += 1
    assert np.allclose(firsts.sum(axis=1) / 6000, 1 / 6, atol=0.02)
    assert np.allclose(firsts[0] / firsts[0].sum(), [0, 1 / 3, 1 / 3, 1 / 3, 0, 0], atol=0.05)
    assert firsts[2, 3] == firsts[2].sum() and firsts[4, 5] == firsts[4].sum()


def test_hierarchical_gives_partners_at_every_level_where_chance_does_not() -> None:
    leaf = np.arange(1200) % 400
    labels = np.stack([leaf // 40, leaf // 4, leaf], axis=1)

    def without(batch: np.ndarray) -> list[float]:
        """The share of images without a partner, at each level."""
        return [float((np.unique(column, return_counts=True)[1] == 1).sum() / len(batch)) for column in labels[batch].T]

    alone = np.mean([without(batch) for batch in epoch(Hierarchical(labels), 40)][:10], axis=0)
    by_chance = np.random.default_rng(0).permutation(1200).reshape(-1, 40)
    chance = np.mean([without(batch) for batch in by_chance], axis=0)
    assert alone[2] < 0.6 < 0.85 < chance[2]
    assert alone[1] < 0.3 < 0.6 < chance[1]
    assert alone[0] < 0.02


@pytest.mark.parametrize("seed", range(6))
def test_balanced_in_each_batch_and_in_the_epoch(seed: int) -> None:
    labels, _ = ragged(seed, skew=0.5)
    for level, size in itertools.product(range(3), (3, 24, 50)):
        nodes = labels[:, level]
        present = np.unique(nodes[nodes >= 0])
        batches = epoch(Balanced(nodes), size)
        assert (nodes[batches] >= 0).all()
        for part in [*batches, batches.ravel()]:
            counts = (nodes[part][:, None] == present).sum(axis=0)
            assert counts.max() - counts.min() <= 1
        smallest = min((nodes == node).sum() for node in present)
        assert len(batches) == len(present) * smallest // size


def test_balanced_takes_other_images_each_time() -> None:
    nodes = np.repeat([0, 1], [4, 400])
    rule = Balanced(nodes)
    taken = {int(image) for seed in range(200) for image in epoch(rule, 8, seed).ravel()}
    assert len(taken) > 300


@pytest.mark.parametrize("seed", range(6))
def test_p_classes_k_images_each(seed: int) -> None:
    labels, _ = ragged(seed, skew=0.8)
    for level, (per_class, picks) in itertools.product(range(3), [(2, 2), (5, 2), (3, 4), (1, 5)]):
        nodes = labels[:, level]
        for batch in epoch(PerClass(nodes, per_class), per_class * picks).tolist():
            rows = nodes[batch].reshape(picks, per_class)
            assert (rows == rows[:, :1]).all() and (rows >= 0).all()
            assert len(set(rows[:, 0].tolist())) == picks


@pytest.mark.parametrize(
    ("sizes", "per_class", "picks", "expected"),
    [([8, 8, 8], 4, 3, 2), ([100, 4, 4], 4, 2, 2), ([9, 9, 9, 9], 4, 3, 2), ([100, 3, 3], 4, 2, 0), ([7], 2, 1, 3)],
)
def test_as_many_p_by_k_batches_as_there_can_be(sizes: list[int], per_class: int, picks: int, expected: int) -> None:
    nodes = np.repeat(range(len(sizes)), sizes)
    assert len(epoch(PerClass(nodes, per_class), per_class * picks)) == expected


@pytest.mark.parametrize("images", [1, 5, 48])
def test_tiny_trees_end(images: int) -> None:
    for nodes in (np.zeros(images, dtype=np.int64), np.arange(images), np.arange(images) // 2):
        labels = np.stack([nodes * 0, nodes], axis=1)
        for size in (1, 2, 5):
            assert epoch(Hierarchical(labels), size).size == images - images % size
            assert len(epoch(Balanced(nodes), size)) == Balanced(nodes).count(size)
            assert len(epoch(PerClass(nodes, 1), size)) == PerClass(nodes, 1).count(size)


def test_skewed_trees_end() -> None:
    """One class has nearly everything, and a chain of single children leads to it."""
    nodes = np.repeat([0, 1, 2], [3000, 1, 2])
    labels = np.stack([nodes * 0, nodes * 0, nodes], axis=1)
    assert epoch(Hierarchical(labels), 100).size == 3000
    assert epoch(Balanced(nodes), 3).shape == (1, 3)
    assert epoch(PerClass(nodes, 1), 2).shape == (3, 2)


def as_process(monkeypatch: pytest.MonkeyPatch, rank: int, processes: int) -> None:
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "world_size", lambda: processes)


@pytest.mark.parametrize("kind", ["hierarchical", "balanced", "pxk"])
def test_processes_share_the_same_global_batches(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.stack([np.arange(300) % 5, np.arange(300) % 10], axis=1)
    found = {}
    for processes in (1, 2, 4):
        shares = []
        for rank in range(processes):
            as_process(monkeypatch, rank, processes)
            sampler = rule_sampler(kind, labels, SIZE // processes, 7, level=1, per_class=3)
            loader = BatchSampler(sampler, SIZE // processes, drop_last=True)
            shares.append([batch for _ in range(2) for batch in loader])
            assert len(shares[-1]) == 2 * len(loader) > 0
        found[processes] = [sum(parts, []) for parts in zip(*shares, strict=True)]
    assert found[1] == found[2] == found[4]
    assert all(len({index for index, _ in batch}) == SIZE for batch in found[1])
    rule, start = sampler.rule, len(found[1]) // 2
    assert len(found[1]) == 2 * rule.count(SIZE)
    assert len({index for batch in found[1][:start] for index, _ in batch}) == start * SIZE
    assert found[1][:start] != found[1][start:]


def test_an_epoch_can_be_chosen_and_the_seed_counts() -> None:
    labels, tree = ragged(5)
    sampler = rule_sampler("hierarchical", labels, SIZE, 7, tree)
    _, second = [*sampler], [*sampler]
    resumed = rule_sampler("hierarchical", labels, SIZE, 7, tree)
    resumed.set_epoch(1)
    assert [*resumed] == second
    other = rule_sampler("hierarchical", labels, SIZE, 8, tree)
    other.set_epoch(1)
    assert [*other] != second


class Numbers(Dataset[Any]):
    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> int:
        return index


def test_the_loader_gives_the_rules_batches() -> None:
    labels = np.arange(48) % 6
    loader = train_loader(Numbers(), 12, 0, seed=1, sampler=rule_sampler("pxk", labels, 12, 1, per_class=4))
    batches = [batch.tolist() for batch in loader]
    assert len(batches) == 4
    assert all(sorted(np.unique(labels[batch], return_counts=True)[1].tolist()) == [4, 4, 4] for batch in batches)


def test_classes_are_the_leaves_of_a_ragged_tree() -> None:
    tree = Taxonomy(("a", "b"), (("x", "y"), ("p", "q")), ((0, 0),))
    labels = np.array([[0, 0]] * 4 + [[0, 1]] * 4 + [[1, -1]] * 4 + [[0, -1]] * 8 + [[-1, -1]] * 8)
    batches = np.array([index for index, _ in rule_sampler("balanced", labels, 3, 0, tree)]).reshape(-1, 3)
    assert len(batches) == 4
    for batch in batches:
        assert sorted(map(tuple, labels[batch].tolist())) == [(0, 0), (0, 1), (1, -1)]


def test_partners_count_like_loops() -> None:
    labels, _ = ragged(9, images=64)
    for level, found in enumerate(partners(labels)):
        column = labels[:, level].tolist()
        others = [sum(b == a for b in column) - 1 for a in column if a >= 0]
        assert found == pytest.approx(sum(others) / len(others))
    assert partners(np.array([-1, -1])) == [0]
    assert partners(np.array([1, 1, 2])) == [pytest.approx(2 / 3)]


def test_describe_names_the_levels_and_leaves_the_sampler_alone() -> None:
    labels = np.stack([np.arange(40) % 2, np.arange(40) % 4], axis=1)
    sampler = rule_sampler("pxk", labels, 8, 3, level=1, per_class=4)
    text = describe(sampler, labels, ("kind", "class"))
    assert text.startswith("data.sampler=pxk with data.per_class=4: up to 32 of 40 images an epoch")
    assert "3.0 of the same class (by chance" in text and "of the same kind" in text
    assert sampler.epoch == 0


@pytest.mark.parametrize("kind", ["hierarchical", "balanced", "pxk"])
def test_no_label_at_all(kind: str) -> None:
    with pytest.raises(UserError, match=f"data.sampler={kind} needs labels, and no image has one"):
        rule_sampler(kind, np.full((20, 2), -1), 4, 0)


@pytest.mark.parametrize(("kind", "labels"), [("hierarchical", [0, 1]), ("balanced", [0, 1, 1]), ("pxk", [0] * 9)])
def test_no_batch_at_all(kind: str, labels: list[int]) -> None:
    with pytest.raises(UserError, match=f"data.sampler={kind}.* can't make a batch of 8 images"):
        rule_sampler(kind, np.array(labels), 8, 0)


def test_no_batch_for_so_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = RuleSampler(Balanced(np.arange(12)), 6, 0)
    as_process(monkeypatch, 0, 4)
    with pytest.raises(UserError, match="can't make a batch of 24 images"):
        next(iter(sampler))


def test_a_hole_in_the_labels() -> None:
    with pytest.raises(UserError, match=r"image 1 has the labels \[-1, 2\], coarse first"):
        rule_sampler("hierarchical", np.array([[0, 1], [-1, 2], [0, 1]]), 2, 0)


def test_random_batches_hold_every_image_but_the_rest() -> None:
    batches = epoch(Random(103), 10)
    assert len(np.unique(batches)) == 100
    assert not np.array_equal(batches, epoch(Random(103), 10, seed=1))


@pytest.mark.parametrize("kind", ["random", "hierarchical", "balanced", "pxk"])
def test_labelled_images_have_their_share_of_every_stretch_and_come_round_after_round(kind: str) -> None:
    labels = np.repeat(np.arange(4), 100).reshape(-1, 1)
    labels[np.arange(400) % 10 > 0] = -1  # a tenth has a label
    sampler = rule_sampler(kind, labels, 40, seed=3, per_class=5, labelled_share=0.25)
    batches = np.array([index for index, _ in sampler]).reshape(-1, 40)
    assert batches.shape == (10, 40)  # as many images as without a share
    known = labels[batches, 0] >= 0
    for start, size in ((0, 40), (0, 20), (20, 20), (7, 8)):
        assert (abs(known[:, start : start + size].sum(axis=1) - size / 4) <= 1).all()
    assert all(len(np.unique(batch)) == 40 for batch in batches)
    labelled = batches[known]
    assert len(labelled) == 100
    for first in range(0, 100, 40):  # forty of them: no one twice before all came once
        assert len(np.unique(labelled[first : first + 40])) == len(labelled[first : first + 40])
    assert len(np.unique(batches[~known])) == 300


def test_labelled_images_of_p_by_k_are_whole_groups() -> None:
    labels = np.where(np.arange(400) % 3 > 0, np.arange(400) // 20, -1)
    batches = np.array([i for i, _ in rule_sampler("pxk", labels, 24, 0, per_class=4, labelled_share=0.4)])
    for batch in batches.reshape(-1, 24):
        found, counts = np.unique(labels[batch], return_counts=True)
        assert counts[found >= 0].tolist() == [4, 4]
    with pytest.raises(UserError, match="can't make a batch of 4 images"):
        rule_sampler("pxk", labels, 4, 0, per_class=4, labelled_share=0.4)


def test_partners_are_found_among_the_labelled_images_of_a_batch() -> None:
    labels = np.repeat(np.arange(50), 20).reshape(-1, 1)
    labels[np.arange(1000) % 20 > 1] = -1  # two of each class
    sampler = rule_sampler("hierarchical", labels, 32, seed=0, labelled_share=0.5)
    for batch in sampler.rule.batches(32, np.random.default_rng(0)):
        own = labels[batch, 0][labels[batch, 0] >= 0]
        assert (np.bincount(own)[own] == 2).all()


def test_processes_share_mixed_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.where(np.arange(600) % 6 == 0, np.arange(600) // 6 % 5, -1)
    alone = list(rule_sampler("random", labels, 20, seed=1, labelled_share=0.3))
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    both = rule_sampler("random", labels, 10, seed=1, labelled_share=0.3)
    order = list(both.order())
    for batch in range(both.total() // 20):
        parts = [order[20 * batch + rank : 20 * batch + 20 : 2] for rank in (0, 1)]
        assert parts[0] + parts[1] == alone[20 * batch : 20 * batch + 20]
        assert [sum(labels[i] >= 0 for i, _ in part) for part in parts] == [3, 3]


@pytest.mark.parametrize(
    ("labels", "size", "message"),
    [
        ([0, 1, 0, 1], 2, "all 4 have one; leave it out"),
        ([-1] * 4, 2, "no image has one; leave data.labelled_share out"),
        ([0, -1, -1, -1, -1, -1, -1, -1], 4, "1 images have labels and 7 have none; there are 1"),
        ([0, 0, 0, 0, 0, 0, 0, -1], 4, "7 images have labels and 1 have none"),
        ([0, -1], 1, "1 images have labels and 1 have none"),
    ],
)
def test_a_share_that_cannot_be(labels: list[int], size: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rule_sampler("random", np.array(labels), size, seed=0, labelled_share=0.5)


def test_a_share_of_almost_none_or_all_leaves_one_image_of_each_kind() -> None:
    rule = Mixed(lambda images: Random(len(images)), np.arange(40) % 2 == 0, 0.001)
    assert rule.parts(10) == (1, 9)
    assert Mixed(lambda images: Random(len(images)), np.arange(40) % 2 == 0, 0.999).parts(10) == (9, 1)
