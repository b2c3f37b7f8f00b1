"""Did training make features better? Two networks over the same images, image by image, with an interval."""

from typing import Any

import torch

from solo.eval.features import FeatureTable
from solo.eval.intervals import paired_images
from solo.eval.json_numbers import plain
from solo.eval.knn import hits
from solo.eval.predict import knn_ranking, linear_ranking
from solo.eval.suite import Protocol

Tables = tuple[FeatureTable, FeatureTable]  # of the images that vote and teach, and of those that are judged
_WORDS = {"knn": "kNN", "linear": "linear"}


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
    found, said, lines = dict[str, Any](), set[str](), list[str]()
    for name, (before, after) in right.items():
        change = paired_images((after - before).tolist(), 100)
        ends = {"start": float(before.mean()), "end": float(after.mean()), "difference": change.mean}
        found[name] = {key: plain(value) for key, value in ends.items()}
        found[name]["ci"] = [plain(change.low), plain(change.high)]
        size = f"{abs(change.mean):.1f} +- {(change.high - change.low) / 2:.1f}"
        none = f"no difference ({'' if change.mean >= 0 else '-'}{size})"
        told = none if change.says == "no difference" else f"{change.says} by {size}"
        lines.append(f"{_WORDS[name]}: {ends['start']:.2f} % -> {ends['end']:.2f} %, {told}")
        said |= {change.says} - {"no difference"}
    says = "no difference" if not said else "mixed" if len(said) > 1 else said.pop()
    text = f"{says}{': stop' if says == 'worse' else ''} ({'; '.join(lines)})"
    return {"says": says, "text": text, **found, "images": len(right["knn"][0]), "bank": len(start[0])}
