"""Embeddings whose hierarchy, and whose collapse, is known."""

from __future__ import annotations

import numpy as np
import torch

from solo.analysis.analyze import RunSource, SnapshotSource
from solo.eval.features import Features, FeatureTable
from solo.taxonomy import Taxonomy

GROUPS, CLASSES = 4, 3
TREE = Taxonomy(
    ("group", "class"),
    (tuple(f"group {g}" for g in range(GROUPS)), tuple(f"class {c}" for c in range(GROUPS * CLASSES))),
    (tuple(c // CLASSES for c in range(GROUPS * CLASSES)),),
)


def planted(
    strength=1.0,
    collapsed=None,
    labels=2,
    flat_group=None,
    n=480,
    dim=48,
    seed=0,
    kind="backbone",
    name="net",
    words="",
):
    """Rows around class centres around group centres, of `strength` 0 (noise) to 1.

    The two classes in `collapsed` are one point. `labels`: 2 for group and class, 1 for the class only, 0 for none. The
    rows of `flat_group` differ in one direction only, almost. `words` stand before the classes' names.
    """
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    label = np.arange(n) % (GROUPS * CLASSES)
    group = label // CLASSES
    centre = np.array([axes[c // CLASSES] + 0.6 * axes[GROUPS + c] for c in range(GROUPS * CLASSES)])
    noise = 0.12 * rng.normal(size=(n, dim))
    if flat_group is not None:
        noise[group == flat_group] *= 0.02
        noise[group == flat_group] += 0.12 * rng.normal(size=((group == flat_group).sum(), 1)) * axes[-1]
    rows = strength * centre[label] + noise
    if collapsed:
        rows[np.isin(label, collapsed)] = centre[collapsed[0]]
    table = FeatureTable(
        torch.tensor(rows, dtype=torch.float32),
        torch.tensor(np.stack([group, label], axis=1)[:, 2 - labels :].astype(np.int64)),
    )
    names = tuple(tuple(f"{words}{name}" for name in level) for level in TREE.names)
    tree = {2: Taxonomy(TREE.levels, names, TREE.parents), 1: Taxonomy.flat(names[1]), 0: None}[labels]
    return Features(name, kind, table, None, tree.levels if tree else (), tree)


def subject(name, strengths=(1.0,), projector=True, **more):
    """A run whose hierarchy grows over its snapshots."""
    kinds = ("backbone", "projector") if projector else ("backbone",)

    def moment(strength, epoch):
        return SnapshotSource(lambda: {kind: planted(strength, kind=kind, name=name, **more) for kind in kinds}, epoch)

    return RunSource(name, tuple(moment(strength, epoch) for epoch, strength in enumerate(strengths)))
