"""What is particular to one method: shapes of heads, which views a loss compares, gradients that are dropped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from solo.errors import UserError
from solo.losses import mae_loss_func, ressl_loss_func, simclr_loss_func, wmse_loss_func
from solo.methods import METHODS
from solo.methods.masked import MAEDecoder
from solo.methods.prototypes import DINOHead

VIT = {"name": "vit_tiny", "kwargs": {"patch_size": 4, "img_size": 12, "embed_dim": 24, "num_heads": 2, "depth": 1}}


def layers(head: nn.Sequential) -> list[str]:
    return [type(layer).__name__.removesuffix("1d") for layer in head]


def ssl_loss(model: Any, batch: Any) -> tuple[Any, Any]:
    out = model.view_outputs(batch)
    return out, model.ssl_loss(out, model.step_of(batch))


def test_supcon_attracts_equal_labels_and_without_labels_the_views(make_cfg: Any, make_batch: Any) -> None:
    model = METHODS["supcon"](make_cfg("supcon", data__num_large_crops=2, data__num_small_crops=1))
    batch = make_batch(small=1)
    batch[2] = torch.tensor([1, 1, 2, -1, -1, 3, 3, 3])
    out, loss = ssl_loss(model, batch)
    ids = torch.tensor([1, 1, 2, -4, -5, 3, 3, 3]).repeat(3)
    torch.testing.assert_close(loss, simclr_loss_func(torch.cat(out["z"]), ids, 0.2))


@pytest.mark.parametrize(("backbone", "depth", "end"), [(None, 2, []), (VIT, 3, ["BatchNorm"])])
def test_mocov3_heads_depend_on_the_backbone(make_cfg: Any, backbone: Any, depth: int, end: list[str]) -> None:
    model = METHODS["mocov3"](make_cfg("mocov3", **({"backbone": backbone} if backbone else {})))
    hidden = ["Linear", "BatchNorm", "ReLU"]
    assert layers(model.projector) == hidden * (depth - 1) + ["Linear", "BatchNorm"]
    assert layers(model.predictor) == [*hidden, "Linear", *end]
    linear = [layer for head in (model.projector, model.predictor) for layer in head if isinstance(layer, nn.Linear)]
    assert all(layer.bias is None for layer in linear) and not model.projector[-1].affine


@pytest.mark.parametrize(("name", "target"), [("nnsiam", "z"), ("nnbyol", "momentum_z")])
def test_neighbours_are_the_targets(make_cfg: Any, make_batch: Any, name: str, target: str) -> None:
    model = METHODS[name](make_cfg(name))
    queue = model.queue.clone()
    batch = make_batch()
    out, loss = ssl_loss(model, batch)
    nn1, nn2 = (queue[(z @ queue.T).argmax(dim=1)] for z in out[target])
    p1, p2 = out["p"]
    cosines = F.cosine_similarity(p1, nn2).mean() + F.cosine_similarity(p2, nn1).mean()
    torch.testing.assert_close(loss, -cosines / 2 if name == "nnsiam" else 4 - 2 * cosines)
    torch.testing.assert_close(model.queue[:8], out[target][0].detach())
    assert model.queue_y[:8].tolist() == batch[2].tolist() and model.queue_ptr == 8
    static = [group["name"] for group in model.learnable_params if group.get("static_lr")]
    assert static == (["predictor"] if name == "nnsiam" else [])


def test_ressl_compares_the_strong_view_with_the_weak_one(make_cfg: Any, make_batch: Any) -> None:
    model = METHODS["ressl"](make_cfg("ressl", method_kwargs__temperature_k=0.05))
    queue = model.queue.clone()
    out, loss = ssl_loss(model, make_batch())
    torch.testing.assert_close(loss, ressl_loss_func(out["z"][0], out["momentum_z"][1], queue, 0.1, 0.05))
    torch.testing.assert_close(model.queue[:8], out["momentum_z"][1])
    assert {"queue", "queue_ptr"} <= set(model.state_dict()) and "queue_y" not in model.state_dict()


def test_wmse_takes_any_number_of_views_and_partitions_the_batch(make_cfg: Any, make_batch: Any) -> None:
    model = METHODS["wmse"](make_cfg("wmse", data__num_large_crops=3, method_kwargs__whitening_iters=2))
    out, loss = ssl_loss(model, make_batch(views=3))
    w1, w2, w3 = (model.whitening(z) for z in out["z"])  # one part: the order of the rows doesn't matter
    expected = wmse_loss_func(w1, w2) + wmse_loss_func(w1, w3) + wmse_loss_func(w2, w3)
    torch.testing.assert_close(loss, expected / 3, rtol=1e-3, atol=1e-4)
    model.whitening_size = 3
    with pytest.raises(UserError, match="batch of 8.*whitening_size=3"):
        ssl_loss(model, make_batch(views=3))


def test_vibcreg_whitens_if_asked(make_cfg: Any) -> None:
    hidden = ["Linear", "BatchNorm", "GELU"]
    for whiten, last in ((True, "LateIterNorm"), (False, "Identity")):
        model = METHODS["vibcreg"](make_cfg("vibcreg", method_kwargs__iternorm=whiten))
        assert layers(model.projector) == [*hidden, *hidden, "Linear", last]
        assert model.cov_loss_weight == 200


def test_dino_clips_the_backbone_and_rests_the_last_layer(make_cfg: Any, ToyViews: Any, fit: Any) -> None:
    for rest, moves in ((1, False), (0, True)):
        model = METHODS["dino"](make_cfg("dino", method_kwargs__freeze_last_layer=rest, method_kwargs__clip_grad=1e-3))
        before = model.head.last_layer.weight.detach().clone()
        fit(model, ToyViews(), max_epochs=1)
        assert torch.equal(model.head.last_layer.weight, before) != moves
        assert model.dino_loss_func.center.any() and model.state_dict()["dino_loss_func.center"].shape == (1, 10)
    for p in model.backbone.parameters():
        p.grad = torch.ones_like(p)
    model.backbone.conv1.weight.grad.mul_(1e-6)
    model.dino_clip_gradients(0.5)
    norms = {name: float(p.grad.norm()) for name, p in model.backbone.named_parameters()}
    assert norms.pop("conv1.weight") < 1e-4 and all(norm == pytest.approx(0.5, rel=1e-4) for norm in norms.values())


def test_dino_head() -> None:
    head = DINOHead(5, 7, use_bn=True, hidden_dim=6, bottleneck_dim=4)
    assert layers(head.mlp) == ["Linear", "BatchNorm", "GELU"] * 2 + ["Linear"]
    assert not head.last_layer.weight_g.requires_grad and not head.mlp[0].bias.any()
    x = torch.randn(3, 5)
    expected = F.normalize(head.eval().mlp(x)) @ F.normalize(head.last_layer.weight_v).T
    torch.testing.assert_close(head(x), expected)
    bare = DINOHead(5, 7, use_bn=False, norm_last_layer=False, num_layers=1, bottleneck_dim=4)
    assert layers(bare.mlp) == ["Linear"] and bare.last_layer.weight_g.requires_grad


def test_mae_masks_in_training_only(make_cfg: Any, make_batch: Any) -> None:
    model = METHODS["mae"](make_cfg("mae", data__num_large_crops=1))
    batch = make_batch(views=1)
    out, loss = ssl_loss(model, batch)
    assert out["mask"][0].sum(dim=1).tolist() == [7] * 8 and out["pred"][0].shape == (8, 9, 16)  # 9 patches, 1 channel
    torch.testing.assert_close(loss, mae_loss_func(batch[1][0], out["pred"][0], out["mask"][0], 4, False))
    assert set(model.eval()(batch[1][0])) == {"logits", "feats"}
    with pytest.raises(UserError, match="'resnet10' can't encode a part"):
        METHODS["mae"](make_cfg("mae", backbone={"name": "resnet10", "kwargs": {"width": 8}}))


def test_mae_decoder_puts_every_patch_in_its_place() -> None:
    decoder = MAEDecoder(6, 8, depth=0, num_heads=2, num_patches=4, patch_size=2)
    x, order = torch.randn(1, 3, 6), torch.tensor([[2, 0, 3, 1]])  # a class token, two kept patches
    tokens = torch.cat([decoder.decoder_embed(x)[0, 1:], decoder.mask_token[0].expand(2, -1)])
    rows = torch.stack([tokens[place] + decoder.decoder_pos_embed[0, 1 + i] for i, place in enumerate(order[0])])
    expected = decoder.decoder_pred(decoder.decoder_norm(rows))
    torch.testing.assert_close(decoder(x, order)[0], expected)
    assert decoder(x, order).shape == (1, 4, 12) and not decoder.decoder_pos_embed.requires_grad
