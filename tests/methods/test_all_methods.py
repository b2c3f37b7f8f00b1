"""Every method with every HEX type: the loss is finite and falls, gradients arrive, the state round-trips."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from solo.errors import ConfigError, UserError
from solo.hex.catalogue import POLICIES
from solo.methods import METHODS
from solo.methods.catalogue import CATALOGUE

pytestmark = pytest.mark.sampled(6)  # each of the six tests below takes other methods and types

TYPES = ("standard", "HEX_fixed", "HEX_adaptive", "superclass", "HCL", "DCL")
CASES = [
    (method, kind)
    for method, facts in CATALOGUE.items()
    for kind in TYPES
    if kind == "standard" or (facts.hex and not (kind == "DCL" and facts.hex == "denominator"))
]


@pytest.fixture(params=CASES, ids="-".join)
def model(request: pytest.FixtureRequest, make_cfg: Any) -> Any:
    method, kind = request.param
    # A quantile that leaves the 16 rows of the batch some hierarchy negatives beside the row's own entry.
    model = METHODS[method](make_cfg(method, type=kind, warm_epoch=0, distance_thresh=0.5, hex__quantile=0.7))
    if hasattr(model, "assignments"):  # what k-means does between the epochs
        model.assignments = torch.stack([torch.arange(8) % 6, torch.arange(8) % 3])
    return model


def ssl_loss(model: Any, batch: Any) -> tuple[Any, Any]:
    """The method's own loss, and the online classifier's."""
    out = model.view_outputs(batch)
    return model.ssl_loss(out, model.step_of(batch)), out["loss"]


def test_loss_is_finite_and_every_trainable_parameter_gets_gradient(model: Any, make_batch: Any) -> None:
    loss = model.training_step(make_batch(), 0)
    loss.backward()
    assert loss.ndim == 0 and torch.isfinite(loss)
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    silent = [
        name for name, grad in trained.items() if grad is None or not torch.isfinite(grad).all() or not grad.any()
    ]
    assert not silent


RELATIVES = [facts.shown for facts in POLICIES.values() if facts.action in ("drop", "pull")]
PLACES = [method for method, facts in CATALOGUE.items() if facts.hex in ("replaces", "blends")]


@pytest.mark.parametrize("kind", RELATIVES)
@pytest.mark.parametrize("method", PLACES)
def test_relatives_change_the_loss_and_its_gradient(method: str, kind: str, make_cfg: Any, make_batch: Any) -> None:
    def gradient(**words: Any) -> Any:
        torch.manual_seed(0)
        model = METHODS[method](make_cfg(method, warm_epoch=0, hex__temperature=0.5, **words))
        if model.hex.bank is not None:
            model.hex.bank.use(torch.arange(8)[:, None] ^ 1)
        for _ in range(2):  # the first fills bank and queue
            model.zero_grad()
            loss = model.training_step(make_batch(), 0)
        loss.backward()
        assert all(torch.isfinite(value) for value in model.hex.stats.values())
        return torch.cat([p.grad.flatten() for p in model.backbone.parameters() if p.grad is not None])

    if kind == "components" and CATALOGUE[method].negatives in ("view", "queue"):
        with pytest.raises(ConfigError, match="joins the rows"):
            gradient(type=kind)
        return
    kwargs = {"least": -1.0} if kind == "fnc" else {"low": 0.3, "high": 0.7} if kind == "ring" else {}
    found = gradient(type=kind, hex__policy_kwargs=kwargs)
    assert torch.isfinite(found).all() and not torch.equal(found, gradient(type="InfoNCE"))


@pytest.mark.parametrize("method", [name for name, facts in CATALOGUE.items() if not facts.labels and name != "mae"])
def test_relatives_that_are_shown_change_no_loss_but_the_online_classifiers(
    method: str, make_cfg: Any, make_batch: Any
) -> None:
    """Its second view may be another image's: neither classifier nor k-NN takes it for the image's own."""

    def losses(kind: str) -> tuple[Any, Any, Any]:
        torch.manual_seed(0)
        model = METHODS[method](make_cfg(method, type=kind))
        batch = make_batch()
        out = model.view_outputs(batch)
        return model.ssl_loss(out, model.step_of(batch)), out["loss"], model.own_views

    (plain, both, two), (shown, first, one) = losses("standard"), losses("HEX")
    assert torch.equal(plain, shown) and two == [0, 1] and one == [0] and not torch.equal(both, first)


def test_hex_selects_something(model: Any, make_batch: Any) -> None:
    for seed in range(4):  # fills half of the queues, too
        model.training_step(make_batch(seed=seed), 0)
    stats = model.hex.stats
    assert bool(stats) == (model.cfg.hex.policy != "standard")
    assert all(torch.isfinite(value) for value in stats.values())
    assert not stats or (stats["hierarchy_negatives"] > 0) == (model.cfg.hex.policy != "dcl")


def test_every_trainable_parameter_is_in_one_group(model: Any) -> None:
    grouped = [id(p) for group in model.learnable_params for p in group["params"] if p.requires_grad]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_loss_falls(model: Any, make_batch: Any) -> None:
    """One batch is learnt; a queue holds other images, for with its own among the negatives no loss could fall."""
    model.optimizer, model.lr = "adamw", 5e-3
    optimizer = model.configure_optimizers()
    for seed in range(1, 5):
        ssl_loss(model, make_batch(seed=seed))
    model.dequeue_and_enqueue = lambda *args, **kwargs: None
    if hasattr(model, "dino_loss_func"):  # the centre moves the targets, and student and teacher start equal
        model.dino_loss_func.update_center = lambda outputs: None
        torch.nn.init.normal_(model.head.last_layer.weight_v)
    ids, (x, noise), labels = make_batch()
    batch = [ids, [x, x + 0.3 * noise], labels]
    losses = []
    for _ in range(8):
        loss, class_loss = ssl_loss(model, batch)
        optimizer.zero_grad()
        (loss + class_loss).backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-2:]) / 2 < losses[0] - 0.1 * abs(losses[0])


def test_state_round_trips(model: Any, make_batch: Any) -> None:
    model.training_step(make_batch(), 0)  # moves queues and running statistics
    other = METHODS[model.cfg.method](model.cfg)
    other.load_state_dict(model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    images = make_batch()[1][0]
    for key, value in model.eval()(images).items():
        assert torch.equal(value, other.eval()(images)[key]), key


def test_half_precision(model: Any, make_batch: Any) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.training_step(make_batch(), 0)
    loss.backward()
    assert torch.isfinite(loss)


def test_hex_is_refused_where_it_has_no_place(make_cfg: Any) -> None:
    with pytest.raises(UserError, match="type='fixed' does nothing in method=mocov3; take standard"):
        METHODS["mocov3"](make_cfg("mocov3", type="HEX_fixed"))
