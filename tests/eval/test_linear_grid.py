"""Heads trained together against torch's own optimizer, one at a time; and who is chosen."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solo.eval.linear import choose, train_heads

PAIRS = [(0.1, 0.0), (0.5, 0.01), (2.0, 0.1)]


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (50,), generator=generator)
    centres = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    return centres[labels] + 0.5 * torch.randn(50, 5, generator=generator, dtype=torch.float64), labels


def reference(x: Tensor, y: Tensor, lr: float, weight_decay: float, epochs: int, batch: int, seed: int) -> nn.Linear:
    layer = nn.Linear(5, 3, dtype=torch.float64)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    groups = [{"params": [layer.weight], "weight_decay": weight_decay}, {"params": [layer.bias]}]
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9)
    generator, step, total = torch.Generator().manual_seed(seed), 0, epochs * math.ceil(len(x) / batch)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(batch):
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 + math.cos(math.pi * step / total)) / 2
            optimizer.zero_grad()
            F.cross_entropy(layer(x[rows]), y[rows]).backward()
            optimizer.step()
            step += 1
    return layer


def test_each_head_is_trained_as_if_it_were_alone(data: tuple[Tensor, Tensor]) -> None:
    weight, bias = train_heads(*data, 3, PAIRS, epochs=3, batch_size=16, seed=4)
    for head, pair in enumerate(PAIRS):
        layer = reference(*data, *pair, epochs=3, batch=16, seed=4)
        torch.testing.assert_close(weight[head].T, layer.weight.detach())
        torch.testing.assert_close(bias[head], layer.bias.detach())


def test_the_best_on_rows_left_out_is_chosen(data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    y[::7] = -1  # unknown rows neither train nor judge
    found = choose(x, y, 3, [1e-6, 0.5], [0.0, 1e3], epochs=5, batch_size=64, seed=0, left_out=0.3)
    chosen, accuracies = found
    best = [pair for pair, accuracy in accuracies.items() if accuracy == max(accuracies.values())]
    assert chosen == min(best) and len(accuracies) == 4
    assert accuracies[0.5, 0.0] > 60
    assert found == choose(x, y, 3, [0.5, 1e-6], [1e3, 0.0], epochs=5, batch_size=64, seed=0, left_out=0.3)
    x[y < 0] = 1e9
    assert choose(x, y, 3, [1e-6, 0.5], [0.0, 1e3], epochs=5, batch_size=64, seed=0, left_out=0.3) == found
