"""HEX with an empty set is the method's own loss, to the last bit, whatever the views and positives."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from solo.args.schema import HexCfg
from solo.hex import AdaptivePercentile, hex_nce
from solo.hex.objective import Hex, Step
from solo.losses.info_nce import info_nce
from solo.losses.pairs import Pairs
from solo.methods.base import TrainStep


def pairs_of(views: int, labels: bool, gathered: bool = True) -> tuple[torch.Tensor, Pairs]:
    z = torch.randn(views * 8, 5, generator=torch.Generator().manual_seed(views), requires_grad=True)
    ids = (torch.arange(8) % 3 if labels else torch.arange(8)).repeat(views)
    return z, Pairs.from_ids(z, ids)


def both(loss: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return loss.detach(), torch.autograd.grad(loss, z)[0]


@pytest.mark.fault(6, "HEX with an empty set, any number of views, with labels", "`standard`, to the last bit")
@pytest.mark.parametrize("positives", ["inside", "outside"])
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("views", [2, 3, 5])
@pytest.mark.parametrize(
    "settings", [{"quantile": 1.0}, {"quantile": 0.5, "warm_epoch": 9}], ids=["nothing", "warm-up"]
)
def test_an_empty_set_is_standard_to_the_last_bit(views: int, labels: bool, positives: Any, settings: Any) -> None:
    hex_ = Hex(HexCfg(policy="adaptive", positives=positives, **{"warm_epoch": 0, **settings}), 0.2)
    own = Hex(HexCfg(positives=positives), 0.2)
    assert own.policy is None
    results = []
    for objective in (own, hex_):
        z, pairs = pairs_of(views, labels)
        loss = objective.replace(partial(info_nce, temperature=0.2, positives=positives), pairs, Step(0, 10))
        results.append(both(loss, z))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert "threshold" not in hex_.stats or hex_.stats["hierarchy_negatives"] == 0


def test_the_choice_matters_for_several_positives_only() -> None:
    policy = AdaptivePercentile(0.6, warm_epoch=0)
    for views, equal in ((2, True), (3, False)):
        losses = [
            hex_nce(pairs_of(views, False)[1], policy, positives=positives)[0] for positives in ("inside", "outside")
        ]
        assert torch.equal(*losses) == equal


@pytest.mark.parametrize("tau_plus", [0.0, 0.1])
def test_hex_of_summed_positives_against_loops_and_its_gradient(tau_plus: float) -> None:
    z, beta, tau = torch.randn(9, 4, dtype=torch.float64, requires_grad=True), 1.0, 0.5
    ids, policy = torch.arange(3).repeat(3), AdaptivePercentile(0.5, warm_epoch=0)

    def loss(z: torch.Tensor) -> torch.Tensor:
        settings: Any = {"temperature": tau, "beta": beta, "tau_plus": tau_plus, "positives": "inside"}
        return hex_nce(Pairs.from_ids(z, ids), policy, **settings)[0]

    unit = torch.nn.functional.normalize(z, dim=1)
    s = unit @ unit.T
    threshold = torch.stack([row.quantile(0.5, interpolation="nearest") for row in s.detach()]).mean()
    terms = []
    for i in range(9):
        negative = [k for k in range(9) if ids[k] != ids[i]]
        local = [k for k in negative if s[i, k] > threshold]
        positive = torch.stack([(s[i, p] / tau).exp() for p in range(9) if ids[p] == ids[i] and p != i])
        total = positive.sum() + sum((s[i, k] / tau).exp() for k in negative if k not in local)
        if local:
            x = s[i, local] / tau
            weight = (beta * x).exp() / (beta * x).exp().mean()
            repelled = ((weight * x.exp()).sum() - tau_plus * len(local) * positive.mean()) / (1 - tau_plus)
            total = total + repelled.clamp_min(len(local) * torch.tensor(-1 / tau).exp())
        terms.append(-(positive.sum() / total).log())
    torch.testing.assert_close(loss(z), torch.stack(terms).mean())
    assert torch.autograd.gradcheck(loss, z)


def test_a_blend_takes_views_or_pairs_and_a_loss_or_what_gives_it() -> None:
    views, ids = [torch.randn(8, 5) for _ in range(2)], torch.arange(8)
    own, moment = torch.tensor(3.0), partial(TrainStep, 0, 10, ids, ids[:, None], ids, ids)
    blended = Hex(HexCfg(policy="adaptive", warm_epoch=0, alpha=0.5), 0.2)
    first, *others = [
        blended.blend(loss, compared, moment())
        for loss in (own, lambda: own)
        for compared in (views, lambda: Pairs.from_views(views, ids, ids))
    ]
    assert first != own and others == [first] * 3
    assert Hex(HexCfg(), 0.2).blend(own, views, moment()) is own
