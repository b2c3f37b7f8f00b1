"""A grid of linear classifiers on features that are made once, against running the backbone in every epoch.

    python benchmarks/grid.py [--epochs 100] [--rounds 5] [--threads 1] [--backbone resnet18] [--side 32]

Digits, and an untrained network that is frozen, in one process; by default a small ResNet-10 on 16 pixels. *Grid*:
features once, 24 pairs of learning rate and weight decay at once on nine tenths of the training images, the best on the
rest, then one classifier of it on all of them. *Backbone*: the classifier of that pair, whose backbone sees the images
in each epoch again; some epochs of it are run between the other's parts, and count for all. Processor time without a
GPU; accuracies on the validation images.
"""

from __future__ import annotations

import argparse

import torch
from data import clock  # type: ignore[import-not-found]
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor, resize

from solo.backbones import build_backbone
from solo.data.catalogue.registry import get_spec
from solo.data.sources.images import load
from solo.eval.linear import choose, train_heads

RATES, DECAYS, BATCH = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0], [0.0, 1e-6, 1e-5, 1e-4], 128


def images(split: str, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels (n, 1, side, side) and classes."""
    spec = get_spec("digits")
    found = load(spec, split, None)
    pixels = resize(torch.stack([pil_to_tensor(image) for image, _ in found]) / 255, [side, side])
    return (pixels - spec.mean[0]).to(device) / spec.std[0], torch.tensor([int(label) for _, label in found])


@torch.no_grad()
def features(network: nn.Module, x: Tensor) -> Tensor:
    """The backbone's, batch by batch."""
    return torch.cat([network(part) for part in x.split(BATCH)])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("epochs", 100), ("rounds", 5), ("threads", 1), ("side", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--backbone", default="resnet10", choices=("resnet10", "resnet18", "resnet50"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    narrow = {"width": 24} if given.backbone == "resnet10" else {}
    network = build_backbone(given.backbone, channels=1, small=True, kwargs=narrow).to(device).eval()
    (x, y), (x_val, y_val) = images("train", given.side, device), images("val", given.side, device)
    scores = features(network, x_val)
    grids, epochs = [], []
    for _ in range(given.rounds):
        start = clock()
        kept = features(network, x)
        pair = [choose(kept, y, 10, RATES, DECAYS, given.epochs, BATCH, seed=0)[0]]
        weight, bias = train_heads(kept, y, 10, pair, given.epochs, BATCH, seed=1)
        grids.append(clock() - start)
        start = clock()
        again = features(network, x)
        train_heads(again, y, 10, pair, 1, BATCH, seed=1)
        epochs.append(clock() - start)
    found = {"grid": (weight[0], bias[0])}
    weight, bias = train_heads(again, y, 10, pair, given.epochs, BATCH, seed=2)
    found["backbone"] = (weight[0], bias[0])
    for name, (w, b) in found.items():
        right = ((scores @ w + b).argmax(dim=1).cpu() == y_val).float().mean()
        print(f"{name:8} {100 * right:.2f} % of {len(y_val)} validation images")
    ratios = sorted(given.epochs * e / g for e, g in zip(epochs, grids, strict=True))
    middle = ratios[len(ratios) // 2]
    print(f"lr {pair[0][0]:g}, weight decay {pair[0][1]:g}; {len(RATES) * len(DECAYS)} pairs are tried")
    print(
        f"faster than {given.epochs} epochs of the backbone with one pair: {middle:.1f} times [{ratios[0]:.1f}, ",
        end="",
    )
    print(f"{ratios[-1]:.1f}], with all of them one after the other {middle * len(RATES) * len(DECAYS):.0f} times")


if __name__ == "__main__":
    main()
