"""What every exported folder holds beside the weights: `solo.json`, `taxonomy.json` and a card, `README.md`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from solo.errors import UserError
from solo.files import write_text
from solo.taxonomy import Taxonomy

DESCRIPTION = "solo.json"
_FORMAT = 1


@dataclass(frozen=True)
class Bundle:
    """A backbone and all that has to be known to use it.

    Attributes:
        backbone: images (B, C, H, W) -> features (B, F); in eval mode, on the CPU.
        name: its registry name, `backbone.name` of the run.
        kwargs: what it was built with.
        method: registry name of the pretraining method, by which some backbones differ; None if unknown.
        small_stem: whether a ResNet has the stem for small images.
        channels: C.
        size: height and width of an image in pixels.
        resize: length of the shorter side before the centre crop; None: images are resized to `size` x `size`.
        mean: per channel, of images in [0, 1].
        std: likewise.
        features_dim: F.
        taxonomy: the label tree of the data it was trained on.
        classifier: weight (classes, F) and bias (classes,), if the run has a classifier.
        facts: about the run, for the card: `name`, `method`, `dataset`, `epochs`, `seed`, `versions`, `numbers`,
            `protocol`.
    """

    backbone: nn.Module
    name: str
    kwargs: Mapping[str, Any]
    method: str | None
    small_stem: bool
    channels: int
    size: int
    resize: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    features_dim: int
    taxonomy: Taxonomy | None
    classifier: Mapping[str, Tensor] | None
    facts: Mapping[str, Any]

    def example(self, count: int = 2) -> Tensor:
        """Random images (count, C, size, size), the same ones each time."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, self.channels, self.size, self.size, generator=generator)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(B, F) of images (B, C, H, W)."""
        found: Tensor = self.backbone(images)
        return found

    def description(self) -> dict[str, Any]:
        """Plain values from which `solo.load` builds it again."""
        keys = ("name", "method", "small_stem", "channels", "size", "resize", "features_dim")
        return {
            "format": _FORMAT,
            **{key: getattr(self, key) for key in keys},
            "kwargs": dict(self.kwargs),
            "mean": list(self.mean),
            "std": list(self.std),
            "taxonomy": self.taxonomy.to_dict() if self.taxonomy else None,
            "facts": dict(self.facts),
        }


def write_description(bundle: Bundle, folder: Path, card: str) -> None:
    """Write `solo.json`, `taxonomy.json` (where there is a tree) and `README.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / DESCRIPTION, json.dumps(bundle.description(), indent=2) + "\n")
    if bundle.taxonomy is not None:
        write_text(folder / "taxonomy.json", json.dumps(bundle.taxonomy.to_dict(), indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "README.md", card)


def read_description(folder: Path) -> dict[str, Any]:
    """`solo.json` of an exported folder.

    Raises:
        UserError: there is none, or it is damaged or from a newer version.
    """
    file = folder / DESCRIPTION
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        version = found["format"]
    except FileNotFoundError as error:
        raise UserError(f"{folder} has no {DESCRIPTION}; give a folder written by solo export") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file} can't be read ({error}); export the run again") from error
    if version != _FORMAT:
        raise UserError(f"{file} has format {version}, this version reads {_FORMAT}; update solo, or export again")
    return dict(found)
