"""What each method promises by itself: heads, outputs, buffers, groups, metrics, and its loss in the paper's words."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from solo.losses.info_nce import info_nce, mocov2plus_loss_func, nnclr_loss_func, simclr_loss_func
from solo.losses.pairs import Pairs
from solo.losses.targets import barlow_loss_func, byol_loss_func, simsiam_loss_func, vicreg_loss_func
from solo.methods import METHODS
from solo.methods.contrastive import redundancy

LAYERS = {nn.Linear: "L", nn.BatchNorm1d: "BN", nn.ReLU: "R"}
NNCLR_HEAD = "L(64,16) BN R L(16,16) BN R L(16,8) BN"
VICREG_HEAD = "L(64,16) BN R L(16,16) BN R L(16,8)"
PREDICTOR = "L(8,16) BN R L(16,8)"
# method -> heads, names of the parameter groups of its own, metrics, keys of forward
ZOO: dict[str, tuple[dict[str, str], list[str], str, set[str]]] = {
    "barlow_twins": ({"projector": VICREG_HEAD}, ["projector"], "train_barlow_loss", {"z"}),
    "vicreg": ({"projector": VICREG_HEAD}, ["projector"], "train_vicreg_loss", {"z"}),
    "byol": (
        {"projector": "L(64,16) BN R L(16,8)", "momentum_projector": "L(64,16) BN R L(16,8)", "predictor": PREDICTOR},
        ["projector", "predictor"],
        "train_neg_cos_sim train_z_std",
        {"z", "p"},
    ),
    "simsiam": (
        {"projector": "L0(64,16) BN R L0(16,16) BN R L(16,8) BN0", "predictor": "L0(8,16) BN R L(16,8)"},
        ["projector", "predictor"],
        "train_neg_cos_sim train_z_std",
        {"z", "p"},
    ),
    "nnclr": (
        {"projector": NNCLR_HEAD, "predictor": PREDICTOR},
        ["projector", "predictor"],
        "train_nnclr_loss train_nn_acc",
        {"z", "p"},
    ),
    "mocov2plus": (
        {"projector": "L(64,16) R L(16,8)", "momentum_projector": "L(64,16) R L(16,8)"},
        ["projector"],
        "train_nce_loss",
        {"z"},
    ),
    "all4one": (
        {"projector": NNCLR_HEAD, "momentum_projector": NNCLR_HEAD, "predictor": PREDICTOR, "predictor2": PREDICTOR},
        ["projector", "predictor", "predictor2", "transformer_encoder"],
        "train_comb_loss train_nnclr_loss train_att_nnclr_loss train_feature_loss train_nn_acc train_z_std",
        {"z", "p"},
    ),
}


def spell(head: Any) -> str:
    words = []
    for layer in head:
        word = LAYERS[type(layer)]
        if isinstance(layer, nn.Linear):
            word += f"{'' if layer.bias is not None else '0'}({layer.in_features},{layer.out_features})"
        elif isinstance(layer, nn.BatchNorm1d) and not layer.affine:
            word += "0"
        words.append(word)
    return " ".join(words)


@pytest.mark.parametrize("method", ZOO)
def test_heads_outputs_groups_and_metrics(method: str, make_cfg: Any, make_batch: Any, ToyViews: Any, fit: Any) -> None:
    heads, groups, metrics, keys = ZOO[method]
    model = METHODS[method](make_cfg(method, max_epochs=1))
    assert {name: spell(getattr(model, name)) for name in heads} == heads
    assert [group["name"] for group in model.learnable_params] == ["backbone", "classifier", *groups]
    assert set(model(make_batch()[1][0])) == {"logits", "feats", *keys}
    logged = fit(model, ToyViews(16), max_epochs=1).callback_metrics
    for name in metrics.split():
        assert torch.isfinite(logged[name]), name


def train(method: str, make_cfg: Any, make_batch: Any, **changes: Any) -> tuple[Any, Any, Any]:
    """A model, the outputs of a batch, and its loss; the queue is that of before the step."""
    model = METHODS[method](make_cfg(method, **changes))
    batch = make_batch()
    out = model.view_outputs(batch)
    queue = model.queue.clone() if hasattr(model, "queue") else None
    loss = model.ssl_loss(out, model.step_of(batch))
    return model, {**out, "queue": queue}, loss


def test_standard_losses_are_the_published_ones(make_cfg: Any, make_batch: Any) -> None:
    _, out, loss = train("vicreg", make_cfg, make_batch, method_kwargs__cov_loss_weight=3)
    assert torch.equal(loss, vicreg_loss_func(*out["z"], cov_loss_weight=3.0))
    _, out, loss = train("barlow_twins", make_cfg, make_batch)
    assert torch.equal(loss, barlow_loss_func(*out["z"], lamb=0.0051, scale_loss=0.024))
    _, out, loss = train("byol", make_cfg, make_batch)
    (p1, p2), (m1, m2) = out["p"], out["momentum_z"]
    torch.testing.assert_close(loss, byol_loss_func(p2, m1) + byol_loss_func(p1, m2))
    _, out, loss = train("simsiam", make_cfg, make_batch)
    (p1, p2), (z1, z2) = out["p"], out["z"]
    torch.testing.assert_close(loss, (simsiam_loss_func(p1, z2) + simsiam_loss_func(p2, z1)) / 2)


def test_nnclr_contrasts_neighbours_with_the_other_views_predictions(make_cfg: Any, make_batch: Any) -> None:
    model, out, loss = train("nnclr", make_cfg, make_batch)
    (z1, z2), (p1, p2) = out["z"], out["p"]
    nn1, nn2 = (out["queue"][(z @ out["queue"].T).argmax(dim=1)] for z in (z1, z2))
    torch.testing.assert_close(loss, (nnclr_loss_func(nn1, p2, 0.2) + nnclr_loss_func(nn2, p1, 0.2)) / 2)
    torch.testing.assert_close(z1.norm(dim=1), torch.ones(8))
    assert torch.equal(model.queue[:8], z1) and model.queue_y[:8].tolist() == make_batch()[2].tolist()
    assert torch.equal(model.queue[8:], out["queue"][8:]) and model.queue_ptr.item() == 8
    places, neighbours = model.find_nn(z1)
    assert places.tolist() == list(range(8)) and torch.equal(neighbours, z1)


def test_moco_contrasts_queries_with_keys_and_the_other_views_queue(make_cfg: Any, make_batch: Any) -> None:
    model, out, loss = train("mocov2plus", make_cfg, make_batch)
    (q1, q2), (k1, k2), queue = out["z"], out["momentum_z"], out["queue"]
    expected = (mocov2plus_loss_func(q1, k2, queue[1], 0.2) + mocov2plus_loss_func(q2, k1, queue[0], 0.2)) / 2
    torch.testing.assert_close(loss, expected)
    assert torch.equal(model.queue[:, :, :8], torch.stack([k1.T, k2.T]))
    assert torch.equal(model.queue[:, :, 8:], queue[:, :, 8:])
    model._dequeue_and_enqueue(torch.stack([k1, k2]))  # as in solo-learn, without labels
    assert (model.queue_y[:8] >= 0).all() and (model.queue_y[8:] == -1).all() and model.queue_ptr.item() == 16


def test_moco_queue_labels_are_coarse_and_old_checkpoints_have_none(make_cfg: Any, make_batch: Any) -> None:
    model, _, _ = train("mocov2plus", make_cfg, make_batch, type="superclass", warm_epoch=0)
    groups = model.label_paths(make_batch()[2])[:, 0]
    assert model.queue_y[:8].tolist() == groups.tolist() and model.hex.stats["hierarchy_negatives"] == 0
    model.training_step(make_batch(), 0)
    assert model.hex.stats["hierarchy_negatives"] > 0  # the queue's labels are known now
    old = {name: value for name, value in model.state_dict().items() if name != "queue_y"}
    model.load_state_dict(old)
    assert model.queue_y.unique().tolist() == [-1]


def test_all4one_adds_up_three_losses(make_cfg: Any, make_batch: Any) -> None:
    model = METHODS["all4one"](make_cfg("all4one")).eval()  # no dropout
    batch = make_batch()
    out, queue = model.view_outputs(batch), model.queue.clone()
    logged: dict[str, Any] = {}
    model.log_metrics = lambda metrics, **_: logged.update(metrics)
    loss = model.ssl_loss(out, model.step_of(batch))
    (z1, z2), (p1, p2), (m1, m2) = out["z"], out["p"], out["momentum_z"]
    nn1, nn2 = (queue[(m @ queue.T).topk(5).indices] for m in (m1, m2))
    first = (nnclr_loss_func(nn1[:, 0], p2, 0.2) + nnclr_loss_func(nn2[:, 0], p1, 0.2)) / 2
    contexts = [model.transformer_encoder(model.pos_enc(nn))[:, 0] for nn in (nn1, nn2)]
    own = [
        model.transformer_encoder(model.pos_enc(torch.cat([model.predictor2(z)[:, None], nn[:, :4]], dim=1)))[:, 0]
        for z, nn in ((z1, nn1), (z2, nn2))
    ]
    attention = (nnclr_loss_func(contexts[0], own[1], 0.1) + nnclr_loss_func(contexts[1], own[0], 0.1)) / 2
    torch.testing.assert_close(logged["train_nnclr_loss"], first)
    torch.testing.assert_close(logged["train_att_nnclr_loss"], attention)
    torch.testing.assert_close(loss, (first + attention + logged["train_feature_loss"]) / 2)
    assert torch.equal(model.queue[:8], m1) and model.queue_index[:8].tolist() == list(range(8))
    groups = {group["name"]: group for group in model.configure_optimizers().param_groups}
    assert groups["transformer_encoder"]["lr"] == 0.1 and groups["predictor2"]["lr"] == model.lr
    place, rows, ids, labels = model.find_nn(m1)
    assert place.tolist() == ids[:, 0].tolist() == list(range(8)) and rows.shape == (8, 5, 8)
    assert labels[:, 0].tolist() == batch[2].tolist()


def test_redundancy_by_loops() -> None:
    a, b = torch.randn(2, 6, 3, dtype=torch.float64), torch.randn(2, 6, 3, dtype=torch.float64)
    on, off = [], []
    for v in range(2):
        for i in range(3):
            for j in range(3):
                c = a[v, :, i] @ b[v, :, j] / (a[v, :, i].norm() * b[v, :, j].norm())
                (on if i == j else off).append((c - int(i == j)) ** 2)
    expected = 10 * (0.5 * (sum(on) / len(on)) ** 0.5 + 0.5 * (sum(off) / len(off)) ** 0.5)
    torch.testing.assert_close(redundancy(a, b), expected)


@pytest.mark.parametrize(("method", "scale"), [("vicreg", 5.0), ("barlow_twins", 1.0), ("byol", 1.0), ("simsiam", 1.0)])
def test_hex_is_blended_in_on_the_online_projections(method: str, scale: float, make_cfg: Any, make_batch: Any) -> None:
    # In warm-up HEX is plain InfoNCE, so the blend can be recomputed.
    torch.manual_seed(1)
    _, _, base = train(method, make_cfg, make_batch)
    torch.manual_seed(1)
    _, out, loss = train(method, make_cfg, make_batch, type="HEX_adaptive", alpha=0.25, temperature=0.3)
    nce = simclr_loss_func(torch.cat(out["z"]), torch.arange(8).repeat(2), 0.3)
    torch.testing.assert_close(loss, 0.75 * base + 0.25 * scale * nce)


def test_byol_predicts_the_large_views_from_small_crops_too(make_cfg: Any, make_batch: Any) -> None:
    model = METHODS["byol"](make_cfg("byol", data__num_large_crops=2, data__num_small_crops=1))
    batch = make_batch(small=1, size=16)
    out = model.view_outputs(batch)
    (p1, p2, p3), (m1, m2) = out["p"], out["momentum_z"]
    pairs = ((p2, m1), (p3, m1), (p1, m2), (p3, m2))
    expected = sum(byol_loss_func(p, m) for p, m in pairs)
    torch.testing.assert_close(model.ssl_loss(out, model.step_of(batch)), expected)


def test_simsiam_keeps_the_predictors_rate_and_a_frozen_bias(make_cfg: Any, ToyViews: Any, fit: Any) -> None:
    model = METHODS["simsiam"](make_cfg("simsiam", scheduler={"name": "warmup_cosine", "warmup_epochs": 0}))
    bias = model.projector[6].bias
    before = bias.detach().clone()
    assert not bias.requires_grad
    fit(model, ToyViews())
    rates = {group["name"]: group["lr"] for group in model.optimizers().param_groups}
    assert rates["predictor"] == model.lr and rates["projector"] < model.lr and torch.equal(bias, before)


@pytest.mark.parametrize("method", ["byol", "mocov2plus", "all4one"])
def test_the_slow_network_follows_projector_and_backbone(method: str, make_cfg: Any, ToyViews: Any, fit: Any) -> None:
    model = METHODS[method](make_cfg(method, max_epochs=1, momentum={"base_tau": 0.6, "final_tau": 0.6}))
    assert model.momentum_pairs == [
        (model.backbone, model.momentum_backbone),
        (model.projector, model.momentum_projector),
    ]
    old = model.momentum_projector[0].weight.clone()
    assert torch.equal(old, model.projector[0].weight)
    fit(model, ToyViews(8), max_epochs=1)  # one step
    new = model.momentum_projector[0].weight
    torch.testing.assert_close(new, 0.6 * old + 0.4 * model.projector[0].weight)
    assert not torch.equal(new, old) and not new.requires_grad


def test_what_two_calls_in_one_step_saw_is_added_up(make_cfg: Any) -> None:
    model = METHODS["nnclr"](make_cfg("nnclr", type="HEX_adaptive", warm_epoch=0, hex__quantile=0.5))
    rows = torch.randn(3, 8, 4)
    groups = torch.zeros(8, dtype=torch.long)
    pairs = [Pairs.between(rows[0], rows[i], torch.arange(8)) for i in (1, 2)]
    step = model.step_of([torch.arange(8), None, groups])
    own, single = partial(info_nce, temperature=model.temperature), []
    for one in pairs:
        model.hex.replace(own, one, model.step_of([torch.arange(8), None, groups]))
        single.append(model.hex.seen)
    for one in pairs:
        model.hex.replace(own, one, step)
    for name, value in model.hex.stats.items():
        total, number = single[0][name] + single[1][name]
        torch.testing.assert_close(value, total / number)
    assert not torch.equal(single[0]["threshold"], single[1]["threshold"])
