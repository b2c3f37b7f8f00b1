from __future__ import annotations

import math

import torch

from solo.nn.memory import SinkhornKnopp


def test_against_a_loop() -> None:
    scores = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    q = [[math.exp(x / 0.5) for x in row] for row in scores.tolist()]
    for _ in range(3):
        for k in range(4):
            total = sum(row[k] for row in q)
            for row in q:
                row[k] /= 4 * total
        for row in q:
            total = sum(row)
            row[:] = [x / (6 * total) for x in row]
    expected = torch.tensor([[6 * x for x in row] for row in q])
    torch.testing.assert_close(SinkhornKnopp(3, 0.5)(scores), expected)


def test_rows_sum_to_one_and_prototypes_are_balanced() -> None:
    scores = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)) + torch.tensor([3.0, 0, 0, 0])
    assignments = SinkhornKnopp(50, 0.5)(scores)
    torch.testing.assert_close(assignments.sum(dim=1), torch.ones(12))
    torch.testing.assert_close(assignments.sum(dim=0), torch.full((4,), 3.0), atol=1e-3, rtol=0)


def test_large_scores_stay_finite_and_no_gradient_flows() -> None:
    scores = (1000 * torch.randn(5, 3)).half().requires_grad_()
    assignments = SinkhornKnopp()(scores)
    assert torch.isfinite(assignments).all() and not assignments.requires_grad and assignments.dtype == torch.float32
