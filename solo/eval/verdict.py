"""Did training make features better? Two networks over the same images, image by image, with an interval."""

from dataclasses import dataclass
from typing import Any

import torch

from solo.eval.features import FeatureTable
from solo.eval.intervals import Paired, paired_images
from solo.eval.json_numbers import plain
from solo.eval.knn import hits
from solo.eval.predict import knn_ranking, linear_ranking
from solo.eval.suite import Protocol

Tables = tuple[FeatureTable, FeatureTable]  # of the images that vote and teach, and of those that are judged


@dataclass(frozen=True)
class Change:
    """Accuracy in percent at the start and at the end, and their difference, paired over the judged images."""

    start: float
    end: float
    difference: Paired

    def __str__(self) -> str:
        size = f"{abs(self.difference.mean):.1f} +- {(self.difference.high - self.difference.low) / 2:.1f}"
        sign = "" if self.difference.mean >= 0 else "-"
        says = self.difference.says
        told = f"no difference ({sign}{size})" if says == "no difference" else f"{says} by {size}"
        return f"{self.start:.2f} % -> {self.end:.2f} %, {told}"


def verdict(start: Tables, end: Tables, protocol: Protocol, device: torch.device) -> dict[str, Any]:
    """Judge the features of two networks by kNN and by a linear classifier, of the same images in the same order.

    Labels are one column of classes, -1 unknown; of the protocol `k`, `temperature`, `l2` and `linear_steps` are read.

    Returns:
        Plain values: for `knn` and `linear` the accuracies, their difference and its interval, `paired_images` over
        the judged images (it knows nothing of other seeds); `says`, which is `better` or `worse` if one measure says so
        and the other doesn't disagree, `mixed` if they do, else `no difference`; and all of it as `text`.
    """
    right: dict[str, list[torch.Tensor]] = {"knn": [], "linear": []}
    for bank, judged in (start, end):
        how = protocol.l2, protocol.linear_steps, device
        rankings = {
            "knn": knn_ranking(bank, judged, protocol.k, protocol.temperature, device),
            "linear": linear_ranking(bank, judged.features, judged.labels, *how)[0],
        }
        for name, ranking in rankings.items():
            right[name].append(100 * hits(ranking, judged.labels)[0]["acc1"].double())
    changes = {
        name: Change(float(before.mean()), float(after.mean()), paired_images((after - before).tolist(), 100))
        for name, (before, after) in right.items()
    }
    said = {change.difference.says for change in changes.values()} - {"no difference"}
    says = "no difference" if not said else "mixed" if len(said) > 1 else said.pop()
    lines = [f"{words}: {changes[name]}" for name, words in (("knn", "kNN"), ("linear", "linear"))]
    return {
        "says": says,
        "text": f"{says}{': stop' if says == 'worse' else ''} ({'; '.join(lines)})",
        **{
            name: {
                "start": plain(change.start),
                "end": plain(change.end),
                "difference": plain(change.difference.mean),
                "ci": [plain(change.difference.low), plain(change.difference.high)],
            }
            for name, change in changes.items()
        },
        "images": len(right["knn"][0]),
        "bank": len(start[0]),
    }
