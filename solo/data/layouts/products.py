"""DeepFashion In-Shop, ModelNet40, DyML-Product: many pictures of each object, for the losses that use all labels.

The objects of the validation images are others than those of the training images; their categories are the same. Both
are in the tree, so that one numbering serves both. The levels are those of Zhang et al., Use All The Labels (CVPR
2022), section 4: https://arxiv.org/abs/2204.13207.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from solo.data.labels.trees import Names
from solo.data.layouts.layout import Layout, either, lines
from solo.data.storage.folders import class_folders, is_image_name

_PARTITION = "list_eval_partition.txt"
DYML_LEVELS = ("coarse", "middle", "fine")
_HEADER_LINES = 2  # the number of images, and the names of the columns


def _inshop_rows(root: Path) -> Iterator[tuple[str, Names, str]]:
    """Image, category > product > variation, and what it is for: `train`, `query` or `gallery`.

    `img/WOMEN/Dresses/id_00000002/02_1_front.jpg` is variation (mostly colour) 02 of product id_00000002.
    """
    file = either(root / "Eval" / _PARTITION, root / _PARTITION)
    for number, pieces in enumerate(lines(file, 1)):
        if number >= _HEADER_LINES:
            image, _, status = pieces[0].split()
            *_, category, product, name = image.split("/")
            if status not in ("train", "query", "gallery"):
                raise ValueError(f"{file.name}: {image} is for {status!r}")
            yield image, (category, product, f"{product} {name.partition('_')[0]}"), status


def _views(root: Path, train: bool) -> Iterator[tuple[Path, Names]]:
    """Image, category > model; `airplane/train/airplane_0001.*.png` are views of airplane_0001."""
    for category in class_folders(root):
        for file in sorted((root / category / ("train" if train else "test")).iterdir()):
            if is_image_name(file.name):
                found = re.match(rf"{re.escape(category)}_\d+", file.name)
                yield file, (category, found[0] if found else file.stem.rpartition("_")[0])


def _dyml_rows(root: Path, train: bool) -> Iterator[tuple[Path, Names]]:
    """Images with their path; in the published lists the heading ends in the first image, `.., fine_id0.jpg, 3`."""
    folder = root / ("train" if train else "mini-bmk_all_in_one")
    first, *rest = (line for (line,) in lines(folder / "label.csv"))
    for row in (first.rpartition("_id")[2], *rest):
        if row:
            name, *numbers = (cell.strip() for cell in row.split(","))
            coarse, middle, fine = (f"{level} {number}" for level, number in zip(DYML_LEVELS, numbers, strict=True))
            yield folder / "imgs" / name, (coarse, middle, fine)


# The query and gallery images validate.
INSHOP = Layout(
    title="DeepFashion In-Shop",
    folder="In-shop Clothes Retrieval Benchmark",
    url="https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html",
    markers=(f"Eval/{_PARTITION}|{_PARTITION}", "Img/img|img"),
    images=lambda root, train: (
        (either(root / "Img", root) / image, path)
        for image, path, status in _inshop_rows(root)
        if (status == "train") == train
    ),
    levels=("category", "product", "variation"),
    queries=lambda root: (
        either(root / "Img", root) / image for image, _, status in _inshop_rows(root) if status == "query"
    ),
)

MODELNET40 = Layout(
    title="ModelNet40 (rendered views)",
    folder="modelnet40_images_new_12x",
    url="https://github.com/jongchyisu/mvcnn_pytorch",
    markers=("airplane/train", "airplane/test"),
    images=_views,
    levels=("category", "model"),
)

# Its classes that validate are others than those that train.
DYML_PRODUCT = Layout(
    title="DyML-Product",
    folder="dyml_product",
    url="https://github.com/SupetZYK/DynamicMetricLearning",
    markers=("train/label.csv", "train/imgs", "mini-bmk_all_in_one/label.csv"),
    images=_dyml_rows,
    levels=DYML_LEVELS,
    of_folder=None,
)
