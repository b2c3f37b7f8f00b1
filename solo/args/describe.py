"""The lines that open a run: what its numbers come to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from solo.args.resolve import BASE_BATCH, global_batch


def describe(cfg: Mapping[str, Any]) -> list[str]:
    """Global batch, learning rate and negatives of a resolved config, one line each."""
    batch, lr, steps = cfg["optimizer"]["batch_size"], cfg["optimizer"]["lr"], cfg["accumulate_grad_batches"]
    total = global_batch(cfg)
    lines = [
        f"global batch {total} = {batch} for each process x {total // batch} process{'es' * (total > batch)}",
        f"learning rate {lr:g} (scaled by {total} / {BASE_BATCH})",
    ]
    if steps > 1:
        lines[1] += f", x {steps} for {steps} accumulated batches"
    if "method" in cfg:
        views = cfg["data"]["num_large_crops"] + cfg["data"]["num_small_crops"]
        lines.append(f"negatives per anchor {views * total - views} = {views} views x {total} - {views}")
        if steps > 1:
            lines[2] += "; accumulating batches adds none"
        hex_cfg, rows = cfg["hex"], views * total
        if hex_cfg["policy"] == "adaptive" and round(hex_cfg["quantile"] * (rows - 1)) == rows - 1:
            lines.append(
                f"HEX_adaptive selects nothing here: among {rows} rows the {hex_cfg['quantile']:g} quantile of an "
                "anchor's cosines is its own, 1; use a larger batch or a smaller hex.quantile"
            )
    return lines
