"""The hierarchical losses layer by layer: against what the paper's release computes, and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from solo.losses import HierarchicalContrastiveLoss
from solo.losses.hierarchical import kept_rows
from solo.losses.hierarchical_rows import label_nodes
from tests.losses import hierarchical_reference as reference
from tests.losses.test_hierarchical import KINDS, batch, grad_of


def with_instance(labels):
    return torch.cat((labels, torch.arange(len(labels))[:, None]), dim=1)


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_release_on_random_trees(kind, levels):
    for seed in range(3):
        z = batch(rows=8, views=2 + seed % 2, seed=seed)
        labels = with_instance(reference.random_labels(len(z), levels, missing=0, seed=seed))
        loss = HierarchicalContrastiveLoss(kind, 0.07, "released", granularity="layer")(z, labels)
        expected = reference.released(z, labels, kind, 0.07)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(grad_of(loss, z), grad_of(expected, z), rtol=1e-9, atol=1e-12)
        single = HierarchicalContrastiveLoss(kind, 0.07, "released", granularity="layer")(z.float(), labels)
        torch.testing.assert_close(single.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind):
    labels = with_instance(reference.random_labels(7, 3))
    loss = HierarchicalContrastiveLoss(kind, 0.3, granularity="layer")
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), batch())


# docs/hierarchical.md: six images on the circle, one view each but a second one at the same place.
DEGREES = [0, 60, 10, 180, 240, 190]
LABELS = [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [1, 2, 4], [1, 3, 5]]
TEMPERATURE = 0.5


def worked_example():
    angle = torch.tensor(DEGREES, dtype=torch.float64).deg2rad()
    z = torch.stack((angle.cos(), angle.sin()), dim=1)
    return torch.stack((z, z), dim=1), torch.tensor(LABELS)


def layer_by_hand(images, groups):
    """SupCon of an image's two equal views among the images given; `groups` are their labels in this layer."""

    def cosine(a, b):
        return math.cos(math.radians(DEGREES[a] - DEGREES[b])) / TEMPERATURE

    total = 0.0
    for i, group in zip(images, groups, strict=True):
        # Both views of every image but one, itself: the other view is at cosine 1.
        norm = math.log(sum(2 * math.exp(cosine(i, a)) for a in images if a != i) + math.exp(1 / TEMPERATURE))
        partners = [(p, 2) for p, other in zip(images, groups, strict=True) if other == group and p != i]
        pulls = sum(times * (norm - cosine(i, p)) for p, times in partners) + norm - 1 / TEMPERATURE
        total += pulls / (1 + sum(times for _, times in partners))
    return total / len(images)


def test_the_worked_example_of_the_documentation():
    z, labels = worked_example()
    fine = layer_by_hand([0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 2, 3])
    coarse = layer_by_hand([0, 2, 3, 5], [0, 0, 1, 1])  # one image a fine class, the first
    expected = {
        "himulcon": (2 * fine + math.sqrt(2) * coarse) / 3,
        "hicone": (fine + max(coarse, fine)) / 3,
        "himulcone": (2 * fine + math.sqrt(2) * max(coarse, fine)) / 3,
    }
    assert (round(fine, 4), round(coarse, 4)) == (1.7194, 1.1237)
    for kind, value in expected.items():
        loss = HierarchicalContrastiveLoss(kind, TEMPERATURE, granularity="layer")(z, labels)
        assert loss.item() == pytest.approx(value, abs=1e-12)
        assert reference.released(z, labels, kind, TEMPERATURE).item() == pytest.approx(value, abs=1e-12)


def test_a_coarser_layer_keeps_one_image_a_finer_node():
    z, labels = worked_example()
    nodes = label_nodes(labels[:, :-1].repeat(2, 1), torch.arange(6).repeat(2))
    kept = kept_rows(nodes, torch.arange(6).repeat(2))
    assert kept.tolist() == [[True, False, True, True, False, True] * 2, [True] * 12]


def test_the_order_of_coarser_layers_is_that_of_the_labels():
    labels = torch.tensor([[0, 1], [0, 0], [0, 1], [0, 0]])
    deeper = torch.cat((torch.zeros(4, 1, dtype=torch.long), labels), dim=1)
    kept = kept_rows(label_nodes(deeper, torch.arange(4)), torch.arange(4))
    # First images of (0, 0, 1) and (0, 0, 0) are 0 and 1; then of the two nodes the one with the smaller label, 1.
    assert kept.tolist() == [[False, True, False, False], [True, True, False, False], [True] * 4]


def test_only_the_last_column_is_the_instance():
    z, labels = worked_example()
    loss = HierarchicalContrastiveLoss(granularity="layer")
    changed = labels.clone()
    changed[:, -1] = 0
    assert torch.equal(loss(z, labels), loss(z, changed))  # it is counted, but never compared
    assert loss(z, labels) != loss(z, labels[:, :2])
