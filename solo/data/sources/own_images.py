"""The source of a user's own images, in whatever form `list_images` knows.

Labels are found by name in the tree of the training images, for validation images as well. Own code can hand any
`torch.utils.data.Dataset` to the loaders instead; its items are `(PIL image, int)`, views and index are added by
wrappers:

    from solo.data.pretrain_dataloader import (
        build_transform_pipeline, dataset_with_index, prepare_dataloader, prepare_n_crop_transform)

    view = build_transform_pipeline("custom", cfg.augmentations[0])
    images = dataset_with_index(MyDataset)(..., transform=prepare_n_crop_transform([view], [2]))
    loader = prepare_dataloader(images, batch_size=256)
    trainer.fit(METHODS["simclr"](cfg), loader)  # cfg.data.num_classes says how many labels there are
"""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from solo.data.catalogue.registry import DatasetSpec
from solo.data.labels.trees import Labels, label_rows
from solo.data.sources.images import ImageFiles, Request
from solo.data.storage.listing import Wanted, list_images
from solo.data.storage.facts import Source
from solo.errors import UserError, printable
from solo.taxonomy import UNKNOWN, Taxonomy

_LOG = logging.getLogger("solo")


class FileDataset(ImageFiles):
    """Image files with labels, one int a level, coarse first, -1 for unknown, of a tree; None: without labels.

    With a target transform in the request, items have the `(levels,)` labels instead of the class; `problems` are what
    had to be left out, one line each.
    """

    def __init__(
        self,
        files: Sequence[Source],
        labels: Sequence[Labels] | None,
        tree: Taxonomy | None,
        request: Request,
        problems: Sequence[str] = (),
    ) -> None:
        classes = [tree.leaf_of(row) for row in labels] if tree and labels else [UNKNOWN] * len(files)
        super().__init__(files, classes, tree.class_names if tree else (), request.transform)
        self.labels = torch.tensor(labels) if labels and request.target_transform else None
        self.root = request.path
        self.problems = list(problems)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, leaf = super().__getitem__(index)
        return image, leaf if self.labels is None else self.labels[index]


def own(spec: DatasetSpec, request: Request) -> FileDataset:
    """The images of `request.path`, with their labels in the tree that `resolve_spec` has found."""
    tree, root = spec.taxonomy, request.path
    columns = list(tree.levels) if tree else []
    skip = spec.on_error == "skip"
    found = list_images(spec.format, root, Wanted(request.split != "val", spec.path_column, columns, skip))
    if tree is None:
        return FileDataset(found.images, None, None, request, found.problems.found)
    try:
        labels, strange = label_rows(found.rows, found.columns, tree, spec.nested)
    except UserError as error:
        raise UserError(f"{root}: {error}") from error
    # Images beside the class folders belong to none of them.
    placed = [number for number, row in enumerate(found.rows) if row]
    if unknown := Counter(strange[number] for number in placed if strange[number]):
        shown = printable(", ".join(sorted(unknown)[:50])) + (", ..." if len(unknown) > 50 else "")
        what = f"{root}: {len(unknown):,} classes of {sum(unknown.values()):,} images are not among the training data's"
        if spec.unknown_classes == "raise":
            hint = " (training folders that can't be read are none, too)" if skip else ""
            text = f"{what} labels: {shown}; take them out, or set data.unknown_classes=drop to leave them out"
            raise UserError(f"{text}, or label to keep the labels that they share with the training data{hint}")
        kept = "left out" if spec.unknown_classes == "drop" else "kept with the labels that they share"
        _LOG.warning("note: %s labels: %s: %s (data.unknown_classes)", what, shown, kept)
        placed = [number for number in placed if spec.unknown_classes == "label" or not strange[number]]
    if not placed:
        raise UserError(f"{root} holds no images in its folders")
    files, labels = [found.images[number] for number in placed], [labels[number] for number in placed]
    data = FileDataset(files, labels, tree, request, found.problems.found)
    if request.split != "val" and found.columns is None:
        counts = Counter(data.targets)
        try:
            tree.check_counts([counts[leaf] for leaf in range(tree.num_classes)])
        except UserError as error:
            raise UserError(f"{root}: {error}") from error
    return data
