"""The lines that open a run: what its numbers come to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from solo.args.resolve import BASE_BATCH, exact_parts, global_batch
from solo.hex.catalogue import policy_facts
from solo.methods.catalogue import facts_of


def describe(cfg: Mapping[str, Any]) -> list[str]:
    """Global batch, learning rate and negatives of a config that trains, one line each."""
    if "optimizer" not in cfg:
        return []
    batch, lr, steps = cfg["optimizer"]["batch_size"], cfg["optimizer"]["lr"], cfg["accumulate_grad_batches"]
    total = global_batch(cfg)
    lines = [
        f"global batch {total} = {batch} for each process x {total // batch} process{'es' * (total > batch)}",
        f"learning rate {lr:g} (scaled by {total} / {BASE_BATCH})",
    ]
    if steps > 1:
        lines[1] += f", x {steps} for {steps} accumulated batches"
    return lines + (negatives(cfg) if "method" in cfg else [])


def negatives(cfg: Mapping[str, Any]) -> list[str]:
    """How many negatives an anchor of a pretraining config has; nothing for a loss without any."""
    parts = exact_parts(cfg["accumulate"], cfg["accumulate_grad_batches"])
    total = global_batch(cfg) * parts
    policy, quantile = cfg["hex"]["policy"], cfg["hex"]["quantile"]
    facts, changed = facts_of(cfg["method"]), policy_facts(policy).path
    against = (facts and facts.negatives) or ("rows" if changed else None)
    if against is None:
        return []
    views = cfg["data"]["num_large_crops"] + cfg["data"]["num_small_crops"]
    if against == "rows":
        row, text = views * total, f"{views * total - views} = {views} views x {total} - {views}"
    elif against == "view":
        row, text = total, f"{total - 1} = {total} - 1"
    else:
        row = cfg["method_kwargs"]["queue_size"]
        text = f"{row}, the queue"
    lines = [f"negatives per anchor {text}"]
    if parts > 1:
        lines[0] += f"; accumulate=exact: one loss sees {parts} batches, {total} images"
    elif cfg["accumulate_grad_batches"] > 1 and against != "queue":
        lines[0] += "; accumulating batches adds none (accumulate=exact would)"
    classes = cfg["data"]["num_classes"] or 1
    if policy == "adaptive" and quantile - 1 + 1 / classes > 1e-9 and classes > 1:
        lines.append(
            f"HEX_adaptive finds mostly the anchor's own class: the nearest {1 - quantile:.2%} are fewer than the "
            f"{1 / classes:.2%} of one of {classes} classes; hex.quantile below {1 - 1 / classes:g} reaches siblings"
        )
    elif against == "rows" and changed and 2 * (total - 1) < classes:
        own = 2 * (total - 1) / classes
        lines.append(f"a batch has {own:.2g} other views of an anchor's class: most anchors find none of it there")
    if policy == "adaptive" and against == "rows" and round(quantile * (row - 1)) == row - 1:
        lines.append(
            f"HEX_adaptive selects nothing here: among {row} rows the {quantile:g} quantile of an anchor's cosines is "
            "its own, 1; use a larger batch or a smaller hex.quantile"
        )
    return lines
