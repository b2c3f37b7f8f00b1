"""What `precision: auto` means on which machine: stand-ins for what devices can do."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from solo import precision
from solo.precision import best_precision, has_depthwise

PLAIN = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=2))
DEPTHWISE = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8))


def test_depthwise_convolutions_are_seen():
    assert has_depthwise(DEPTHWISE) and not has_depthwise(PLAIN)
    assert not has_depthwise(nn.Conv2d(1, 8, 3))  # grey images


@pytest.mark.parametrize(
    ("instructions", "network", "expected"),
    [(False, PLAIN, "32-true"), (True, PLAIN, "bf16-mixed"), (True, DEPTHWISE, "32-true")],
)
def test_on_a_cpu(monkeypatch, instructions, network, expected):
    monkeypatch.setattr(precision, "cpu_multiplies_bfloat16", lambda: instructions)
    assert best_precision(torch.device("cpu"), network)[0] == expected


@pytest.mark.parametrize(("bfloat16", "expected"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_on_a_gpu_depthwise_or_not(monkeypatch, bfloat16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16 or including_emulation)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    assert best_precision(torch.device("cuda", 0), DEPTHWISE)[0] == expected


def test_elsewhere_it_is_float32():
    assert best_precision(torch.device("mps"), PLAIN)[0] == "32-true"


@pytest.mark.parametrize(("side", "expected"), [(8, "32-true"), (16, "bf16-mixed")])
def test_maps_of_one_pixel_are_kept_from_half_precision_on_a_cpu(monkeypatch, side, expected):
    monkeypatch.setattr(precision, "cpu_multiplies_bfloat16", lambda: True)
    network = nn.Sequential(*(nn.Conv2d(1, 1, 3, stride=2, padding=1) for _ in range(4)))
    assert best_precision(torch.device("cpu"), network, (1, side))[0] == expected
