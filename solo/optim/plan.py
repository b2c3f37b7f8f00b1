"""What the schedules give in every optimizer step, known before the first one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from solo.optim.build import Schedule


def plan_groups(
    schedule: Schedule,
    groups: Sequence[Mapping[str, Any]],
    static: Sequence[int],
    step: int,
    steps_per_epoch: float,
) -> dict[str, float | None]:
    """`lr` and `weight_decay` of the first parameter group, `lr/<name>`, ... of those that have their own.

    Args:
        schedule: of the learning rate.
        groups: the optimizer's, with `name` and, where there is a scheduler, `initial_lr`.
        static: indexes of the groups whose rate stays as it is, after the schedule's first move.
        step: 0-based, of the whole run.
        steps_per_epoch: optimizer steps of an epoch.

    Returns:
        Plain numbers; None for a rate that depends on the data (`scheduler: reduce`).
    """
    row: dict[str, float | None] = {}
    for index, group in enumerate(groups):
        base = float(group.get("initial_lr", group["lr"]))
        moved = step >= (1 if schedule.by_step else steps_per_epoch) and schedule.name != "none"
        lr = schedule.lr if index in static and moved else schedule.rate(step, steps_per_epoch, base)
        for key, value in {"lr": lr, "weight_decay": float(group["weight_decay"])}.items():
            name = f"{key}/{group.get('name', index)}" if index else key
            if index == 0 or value != row[key]:
                row[name] = value
    return row
