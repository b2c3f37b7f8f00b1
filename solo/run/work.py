"""How much a network has to compute for an image, and how much a device can."""

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from solo.args.schema import PretrainCfg
from solo.callbacks.summary import Work
from solo.methods.base import BaseMethod

# Products and sums a second in 16 bits, dense, as published; the first that the device's name contains.
_PEAKS = {
    **{"B200": 2250e12, "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12},
    **{"A10G": 70e12, "A10": 125e12, "L4": 121e12, "V100": 125e12, "T4": 65e12, "4090": 165e12, "3090": 71e12},
}


def work_of(model: BaseMethod, cfg: PretrainCfg, device: torch.device, processes: int) -> Work:
    """What one image costs with all its views: forward and twice as much backward, forward of a slow network.

    Products of matrices and convolutions count, those of the loss don't. Nothing in the model changes; `processes` are
    the devices in all.
    """
    channels = cfg.data.channels or cfg.data.spec.channels
    sides = [entry.crop_size or cfg.data.image_size or cfg.data.spec.size for entry in cfg.augmentations]
    views = [side for side, entry in zip(sides, cfg.augmentations, strict=True) for _ in range(entry.num_crops)]
    network = copy.deepcopy(model).eval()
    slow = getattr(network, "momentum_forward", None) if getattr(network, "has_teacher", True) else None
    trained = 3 if any(parameter.requires_grad for parameter in network.backbone.parameters()) else 1
    flops = 0
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for number, side in enumerate(views):
            image, large = torch.zeros(1, channels, side, side), number < network.num_large_crops
            with FlopCounterMode(display=False) as counted:
                (network if large else network.multicrop_forward)(image)
            flops += trained * counted.get_total_flops()
            if large and slow is not None:
                with FlopCounterMode(display=False) as counted:
                    slow(image)
                flops += counted.get_total_flops()
    return Work(len(views), flops, _peak(device, str(cfg.trainer.get("precision")), processes))


def _peak(device: torch.device, precision: str, processes: int) -> float | None:
    if device.type != "cuda" or "16" not in precision:
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak * processes for known, peak in _PEAKS.items() if known in name), None)
