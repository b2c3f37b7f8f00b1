"""How many processes this machine can feed."""

import os


def usable_cores() -> int:
    """Processor cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def fitting_workers(asked: int) -> int:
    """Loader processes to start where so many are asked for: more than there are cores slow each other down."""
    return min(asked, usable_cores())
