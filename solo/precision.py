"""Which arithmetic: float32 or better for losses, and what `precision: auto` means on a device."""

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, ParamSpec

import torch
from torch import Tensor, nn

P = ParamSpec("P")


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32, everything else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _widen(x: Any) -> Any:
    if isinstance(x, Tensor):
        return at_least_float32(x)
    return [_widen(item) for item in x] if isinstance(x, (list, tuple)) else x


def full_precision(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Let a loss of tensors, or lists of them, compute in float32 or better: autocast is off, half precision raised."""

    @functools.wraps(loss)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        lists = (x if isinstance(x, (list, tuple)) else [x] for x in (*args, *kwargs.values()))
        device = next(x.device for x in chain.from_iterable(lists) if isinstance(x, Tensor))
        with torch.autocast(device.type, enabled=False):
            return loss(*map(_widen, args), **{name: _widen(value) for name, value in kwargs.items()})

    return wrapper


@contextmanager
def exact_products() -> Iterator[None]:
    """Products of float32 matrices in float32, where a run lets GPUs take TF32: ten bits, pixels need more."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def best_precision(device: torch.device, network: nn.Module, image: tuple[int, int] | None = None) -> tuple[str, str]:
    """What `precision: auto` means: Lightning's name of the number format, and why, in a few words.

    Half precision where the device multiplies in it. On a CPU depthwise convolutions have no fast kernels in bfloat16
    (measured: 0.4 to 0.6 of the speed of float32, dense networks 1.5 to 2.4). `image`: channels and side of the
    smallest one, if known.
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
    if image is not None and strides_over_one_pixel(network, *image):
        return "32-true", f"images of {image[1]} pixels become a single one, of which oneDNN's bfloat16 takes more"
    return "bf16-mixed", "CPU with instructions for bfloat16"


def cpu_multiplies_bfloat16() -> bool:
    """Whether this processor has AMX or AVX512-BF16; without them bfloat16 is slower than float32."""
    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asked)


def has_depthwise(network: nn.Module) -> bool:
    """Whether some convolution filters each channel by itself."""
    return any(isinstance(part, nn.Conv2d) and part.groups == part.in_channels > 1 for part in network.modules())


@torch.no_grad()
def strides_over_one_pixel(network: nn.Module, channels: int, side: int) -> bool:
    """Whether a convolution moves in steps over maps of one pixel, in images of this size.

    In bfloat16 the gradient of its weights is then not finite in every second call (oneDNN 3.13 on AVX512).
    """
    found: list[bool] = []

    def look(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(min(inputs[0].shape[-2:]) == 1)

    network = copy.deepcopy(network).eval()
    for part in network.modules():
        if isinstance(part, nn.Conv2d) and max(part.stride) > 1 and max(part.kernel_size) > 1:
            part.register_forward_pre_hook(look)
    device = next((parameter.device for parameter in network.parameters()), None)
    network(torch.zeros(1, channels, side, side, device=device))
    return any(found)
