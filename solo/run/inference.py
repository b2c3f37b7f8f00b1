"""What a trained network is asked about, image by image, and what its classifier answers at every level of a tree."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from solo.data.storage.facts import Problems, image_folders
from solo.data.storage.reading import ImageReading
from solo.errors import UserError
from solo.eval.predictions import expected_heights
from solo.taxonomy import Taxonomy


def image_files(place: str | Path, problems: Problems | None = None) -> list[Path]:
    """The images below a folder, sorted, at least one, or one image; `problems` decides about folders not readable."""
    path, problems = Path(place).expanduser(), problems or Problems()
    if not path.exists():
        raise UserError(f"{place} doesn't exist; give an image, or a folder of images")
    if not path.is_dir():
        return [path]
    found = [path.joinpath(*parts, name) for parts, names in image_folders(path, problems) for name in names]
    if not found:
        nothing = f"{path} holds no images, neither directly nor in its folders"
        raise UserError("; ".join([nothing, *problems.found[:1]]))
    return found


def each_image(images: Any, channels: int) -> Iterator[Any]:
    """The images one by one of whatever `PretrainedModel.embed` takes; a `UserError` for what holds none."""
    if isinstance(images, Tensor):
        alone = images.ndim < 4
    elif isinstance(images, np.ndarray):
        alone = images.ndim < 3 or (images.ndim == 3 and images.shape[2] in (1, 3, 4, channels))
    else:
        alone = isinstance(images, Image.Image)
    if isinstance(images, (str, Path)):
        images = image_files(images)
    elif not alone and not isinstance(images, Iterable):
        raise UserError(f"a {type(images).__name__} holds no images; give PIL images, arrays, tensors or paths")
    yield from [images] if alone else images


def as_image(image: Any, reading: ImageReading) -> Any:
    """What a network's transform takes, of a path, array or picture: a `PIL.Image`, or an array of more channels."""
    if isinstance(image, (str, Path)):
        return reading.read(Path(image).expanduser())
    if not isinstance(image, (np.ndarray, Image.Image)):
        raise UserError(f"a {type(image).__name__} is no image; give PIL images, arrays, tensors or paths")
    pictures = reading.channels in (1, 3)
    try:
        if isinstance(image, Image.Image):
            return reading.picture(image) if pictures else image
        if image.ndim not in (2, 3):
            raise ValueError(f"its shape is {image.shape}, not (H, W) or (H, W, C)")
        image = reading.eight_bits(image)
        plane = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
        return reading.flat(Image.fromarray(plane)) if pictures else image
    except (ValueError, TypeError, OSError) as error:
        what = "an array" if isinstance(image, np.ndarray) else "a picture"
        raise UserError(f"{what} can't be read as an image: {error}") from error


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of N images."""

    probabilities: Tensor  # (N, C) of the classes; each row sums to 1
    tree: Taxonomy  # of the classes
    level: str | None = None  # which level `best` names; None: the classes
    k: int = 5  # how many it names
    # whether `best` are the classes of the least expected height of their common ancestor with the truth (CRM, see
    # `solo.eval.predictions.expected_heights`), not the most probable ones
    careful: bool = False

    def __len__(self) -> int:
        return len(self.probabilities)

    def at(self, level: str) -> Tensor:
        """(N, nodes): the probability of a node is the sum of those of the classes below it."""
        place = self.tree.levels.index(level)
        paths = torch.tensor(self.tree.path_table())[:, place]
        known = paths >= 0  # classes that end above this level are below none of its nodes
        summed = self.probabilities.new_zeros(len(self), len(self.tree.names[place]))
        return summed.index_add_(1, paths[known], self.probabilities[:, known])

    @property
    def best(self) -> list[list[tuple[str, float]]]:
        """For each image the `k` most probable names with their probabilities, the best first; see `careful`."""
        names, liking = self.tree.class_names, self.probabilities
        if self.level is not None:
            names, liking = self.tree.names[self.tree.levels.index(self.level)], self.at(self.level)
        table = liking
        if self.careful and self.level is None:
            expected = torch.from_numpy(expected_heights(self.tree, table.double().numpy()))
            liking = -expected.masked_fill(table == 0, torch.inf)
        columns = liking.topk(min(self.k, table.shape[1]), dim=1).indices
        pairs = zip(columns.tolist(), table.gather(1, columns).tolist(), strict=True)
        return [[(names[c], v) for c, v in zip(*row, strict=True)] for row in pairs]

    def paths(self) -> Iterator[tuple[str, ...]]:
        """For each image the way down the tree by the best child at each step; its end may not be the best class."""
        tables = [self.at(level).tolist() for level in self.tree.levels]
        for row in range(len(self)):
            path: list[str] = []
            nodes = tuple(range(len(self.tree.names[0])))
            while nodes:
                level = len(path)
                best = max(nodes, key=tables[level][row].__getitem__)
                path.append(self.tree.names[level][best])
                nodes = self.tree.children[level][best] if level + 1 < self.tree.num_levels else ()
            yield tuple(path)


def predictions(
    logits: Tensor, tree: Taxonomy, k: int = 5, level: str | None = None, within: str | None = None
) -> Predictions:
    """Softmax of logits (N, C) over the classes, or those below one node, `within`; or a `UserError`."""
    if k < 1:
        raise UserError(f"k={k} must be at least 1")
    if level is not None and level not in tree.levels:
        raise UserError(f"level={level!r} is unknown; choose one of {', '.join(tree.levels)}")
    logits = logits.float()
    if within is not None:
        outside = torch.ones(logits.shape[1], dtype=torch.bool)
        outside[list(_below(tree, within))] = False
        logits = logits.masked_fill(outside, -torch.inf)
    return Predictions(logits.softmax(dim=1), tree, level, k)


def _below(tree: Taxonomy, name: str) -> tuple[int, ...]:
    """The classes below the node of this name; of several the coarsest, or with `LEVEL:NAME` that one."""
    level, _, rest = name.partition(":")
    wanted = [(level, rest)] if level in tree.levels and rest else [(known, name) for known in tree.levels]
    for known, node in wanted:
        place = tree.levels.index(known)
        if node in tree.names[place]:
            return tree.leaves_under(place, tree.names[place].index(node))
    raise UserError(f"within={name!r} is no node of the label tree; its coarsest are {', '.join(tree.names[0][:10])}")
