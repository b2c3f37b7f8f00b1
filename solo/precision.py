"""Which arithmetic: float32 or better for losses, and what `precision: auto` means on a device."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32, everything else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def best_precision(device: torch.device, network: nn.Module) -> tuple[str, str]:
    """What `precision: auto` means: Lightning's name of the number format, and why, in a few words.

    Half precision where the device multiplies in it. On a CPU that is where it has instructions for bfloat16, and the
    network has no depthwise convolutions: for these oneDNN has no fast kernels in it (measured: 0.4 to 0.6 of the speed
    of float32, against 1.5 to 2.4 times the speed of dense networks).

    Args:
        device: to train on.
        network: the backbone.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            real = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16-mixed", "GPU with bfloat16") if real else ("16-mixed", "GPU without bfloat16")
    if device.type != "cpu":
        return "32-true", f"half precision is untried on {device.type}"
    if not cpu_multiplies_bfloat16():
        return "32-true", "CPU without instructions for bfloat16"
    if has_depthwise(network):
        return "32-true", "depthwise convolutions are slow in bfloat16 on a CPU"
    return "bf16-mixed", "CPU with instructions for bfloat16"


def cpu_multiplies_bfloat16() -> bool:
    """Whether this processor has AMX or AVX512-BF16; without them bfloat16 is slower than float32."""
    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asked)


def has_depthwise(network: nn.Module) -> bool:
    """Whether some convolution filters each channel by itself."""
    return any(isinstance(part, nn.Conv2d) and part.groups == part.in_channels > 1 for part in network.modules())
