"""Any loss of the installed lightly: those of two views train, on two processes as on one; the others are refused."""

from __future__ import annotations

from typing import Any

import lightly.loss
import pytest
import torch
from torch import Tensor

from solo import distributed
from solo.doctor.parity import on_groups
from solo.doctor.toy import Case, quietly, toy_cfg
from solo.errors import ConfigError, UserError
from solo.methods import METHODS
from solo.methods.lightly_losses import for_two_views, losses

TWO_VIEWS = sorted(for_two_views())
OWN: dict[str, dict[str, Any]] = {
    "DirectCLRLoss": {"proj_output_dim": None},
    "TiCoLoss": {"loss_kwargs": {"beta": 0.0}},  # its memory starts at 0, so that the loss grows at first
    "NegativeCosineSimilarity": {"pred_hidden_dim": 16},
    "WMSELoss": {"proj_output_dim": 4, "loss_kwargs": {"w_size": 8}},
}


def kwargs_of(loss: str) -> dict[str, Any]:
    return {"loss": loss, "proj_hidden_dim": 16, "proj_output_dim": 8, **OWN.get(loss, {})}


def test_every_exported_class_with_a_forward_is_known() -> None:
    exported = {name: getattr(lightly.loss, name) for name in dir(lightly.loss)}
    modules = {name for name, found in exported.items() if isinstance(found, type) and hasattr(found, "forward")}
    assert set(losses()) == modules
    assert {"NTXentLoss", "DCLLoss", "DCLWLoss", "TiCoLoss", "VICRegLoss", "MMCRLoss", "BarlowTwinsLoss"} <= {
        *TWO_VIEWS
    }


@pytest.mark.sampled(3)
@pytest.mark.parametrize("loss", TWO_VIEWS)
@pytest.mark.parametrize("kind", ["standard", "HEX_adaptive"])
def test_it_trains(loss: str, kind: str, make_cfg: Any, make_batch: Any) -> None:
    cfg = make_cfg("lightly", method_kwargs=kwargs_of(loss), type=kind, warm_epoch=0, hex__quantile=0.7)
    model = METHODS["lightly"](cfg)
    ids, (x, noise), labels = make_batch()
    batch, found = [ids, [x, x + 0.3 * noise], labels], []
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=2e-3)
    for _ in range(8):
        optimizer.zero_grad()
        total = model.training_step(batch, 0)
        total.backward()
        own = [p.grad for part in (model.backbone, model.projector, model.predictor) for p in part.parameters()]
        assert all(grad is not None and torch.isfinite(grad).all() for grad in own) and any(grad.any() for grad in own)
        optimizer.step()
        out = model.view_outputs(batch)
        found.append(model.ssl_loss(out, model.step_of(batch)).item())
    # VISReg stops the gradient of the scale that it divides by: its value needn't fall at first.
    assert loss == "VISRegLoss" or sum(found[-2:]) < sum(found[:2])


@pytest.mark.parametrize("loss", sorted({*losses()} - {*TWO_VIEWS}))
def test_the_others_say_why_not(loss: str, make_cfg: Any) -> None:
    with pytest.raises(ConfigError, match=rf"loss={loss} takes \w+.*(take method=|choose BarlowTwinsLoss)"):
        METHODS["lightly"](make_cfg("lightly", method_kwargs=kwargs_of(loss)))


@pytest.mark.parametrize(
    ("loss", "changes", "said"),
    [
        ("TicoLoss", {}, "is unknown; did you mean 'TiCoLoss'"),
        ("DCLLoss", {"loss_kwargs": {"tau": 1}}, "loss_kwargs.tau is not a key.*keys of .*: temperature"),
        ("DCLLoss", {"loss_kwargs": {"temperature": "hot"}}, "temperature='hot' has the wrong type; give float"),
        ("DCLLoss", {"loss_kwargs": {"gather_distributed": True}}, "not to be set: every loss sees"),
        ("NTXentLoss", {"loss_kwargs": {"memory_bank_size": 4}}, "not to be set: .*mocov2plus"),
        ("NTXentLoss", {"loss_kwargs": {"temperature": 0}}, "NTXentLoss says: Illegal temperature"),
        ("DirectCLRLoss", {"proj_output_dim": 8}, "of the features themselves; set it to null"),
        ("NegativeCosineSimilarity", {"pred_hidden_dim": None}, "without a predictor .* collapses"),
        ("FroSSLLoss", {"teacher": True}, "takes all views alike; leave it out"),
    ],
)
def test_wrong_settings_get_a_line(loss: str, changes: dict[str, Any], said: str, make_cfg: Any) -> None:
    with pytest.raises(UserError, match=said) as caught:
        METHODS["lightly"](make_cfg("lightly", method_kwargs={**kwargs_of(loss), **changes}))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("loss", ["BarlowTwinsLoss", "TiCoLoss"])
def test_its_value_is_lightlys(loss: str, make_cfg: Any, make_batch: Any) -> None:
    model = METHODS["lightly"](make_cfg("lightly", method_kwargs={**kwargs_of(loss), "loss_kwargs": {}}))
    parts = hasattr(model, "momentum_backbone"), model.has_teacher, bool(model.momentum_pairs)
    assert set(parts) == {loss == "TiCoLoss"}
    own, batch = getattr(lightly.loss, loss)(), make_batch()
    for _ in range(2):  # TiCo remembers
        out = model.view_outputs(batch)
        (z1, z2), (t1, t2) = out["z"], out["momentum_z"] if model.has_teacher else out["z"][::-1]
        expected = (own(z1, t2) + own(z2, t1)) / 2 if model.has_teacher else own(z1, z2)
        torch.testing.assert_close(model.ssl_loss(out, model.step_of(batch)), expected)
    assert ("criterion.C" in model.state_dict()) == (loss == "TiCoLoss")


def test_with_a_slow_copy_and_a_predictor_it_is_byol(make_cfg: Any, make_batch: Any) -> None:
    kwargs = {**kwargs_of("NegativeCosineSimilarity"), "teacher": True}
    model = METHODS["lightly"](make_cfg("lightly", method_kwargs=kwargs))
    out, step = model.view_outputs(make_batch()), model.step_of(make_batch())
    expected = METHODS["byol"].ssl_loss(model, out, step)
    torch.testing.assert_close(4 + 4 * model.ssl_loss(out, step), expected)


def on_own_rows(_: None) -> list[tuple[str, Tensor, Tensor]]:
    """Loss and gradient of a shared layer, of each loss on this process's rows."""
    found = []
    for name in TWO_VIEWS:
        with quietly():
            torch.manual_seed(0)
            model: Any = METHODS["lightly"](toy_cfg(Case("lightly"), 8, method_kwargs=kwargs_of(name))).double()
            torch.manual_seed(1)
            width = model.features_dim if name == "DirectCLRLoss" else kwargs_of(name)["proj_output_dim"]
            z1, z2 = (distributed.own_rows(view) for view in torch.randn(2, 16, width, dtype=torch.float64))
            weight = (torch.eye(width) + 0.1).double().requires_grad_()
            loss = model.compare(z1 @ weight, z2 @ weight)
            found.append((name, loss.detach(), torch.autograd.grad(loss, weight)[0]))
    return found


@pytest.mark.thorough
def test_two_processes_have_the_loss_and_the_gradient_of_one() -> None:
    (one,), many = on_groups(on_own_rows, [1, 2], None)
    for (name, loss, grad), *parts in zip(one, *many, strict=True):
        for index, whole in ((1, loss), (2, grad)):
            mean = sum(part[index] for part in parts) / len(parts)
            torch.testing.assert_close(
                mean, whole, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
            )
