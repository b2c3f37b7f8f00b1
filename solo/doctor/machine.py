"""What the machine is, and what computes on it."""

import os
import platform

import torch

from solo.callbacks import summary
from solo.cores import usable_cores

Fact = tuple[str, str]


def versions() -> list[Fact]:
    """Python's and the packages' that decide what a run computes."""
    found = summary.versions("torchvision", "numpy", "pillow")
    return [*(found | {"python": f"{found['python']} on {platform.system()} {platform.machine()}"}).items()]


def devices() -> list[Fact]:
    """Processor, memory, GPUs, and what processes talk through."""
    found = [("processor", f"{usable_cores()} cores, torch uses {torch.get_num_threads()} of them in a process")]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found.append(("memory", f"{size / 2**30:.1f} GiB"))
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        found.append((f"cuda:{index}", f"{card.name}, {card.total_memory / 2**30:.1f} GiB"))
    if torch.cuda.is_available():
        found.append(("bf16 on GPU", "yes" if torch.cuda.is_bf16_supported() else "no: use precision=16-mixed"))
    elif torch.backends.mps.is_available():
        found.append(("mps", "available"))
    else:
        found.append(("GPU", "none visible"))
    backends = [name for name in ("gloo", "nccl", "mpi") if getattr(torch.distributed, f"is_{name}_available", bool)()]
    found.append(("processes talk by", ", ".join(backends) or "nothing: torch has no distributed package"))
    return found
