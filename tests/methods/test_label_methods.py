"""The methods that learn from labels: what of the labels they read, and the layers of a backbone that they train."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from solo.errors import UserError
from solo.losses import HierarchicalContrastiveLoss, cross_entropy_loss_func, simclr_loss_func
from solo.methods import METHODS
from solo.nn.networks import freeze_layers

KINDS = ["himulcon", "hicone", "himulcone"]
PATHS = torch.tensor([[0, 0], [0, 0], [0, 2], [1, 3], [1, -1], [-1, -1], [-1, -1], [2, 9]])


def ssl_loss(model, batch):
    out = model.view_outputs(batch)
    return model.ssl_loss(out, model.step_of(batch)), out


@pytest.mark.parametrize("kind", KINDS)
def test_the_image_is_the_leaf_of_its_labels(kind, make_cfg, make_batch):
    ids, views, _ = make_batch()
    model = METHODS[kind](make_cfg(kind))
    loss, out = ssl_loss(model, [ids, views, PATHS])
    labels = torch.cat((PATHS, ids[:, None]), dim=1)
    expected = HierarchicalContrastiveLoss(kind, 0.2)(torch.stack(out["z"], dim=1), labels)
    torch.testing.assert_close(loss, expected)
    flat = METHODS[kind](make_cfg(kind, method_kwargs__instance=False, method_kwargs__pairs="cumulative"))
    flat.load_state_dict(model.state_dict())
    loss, out = ssl_loss(flat, [ids, views, PATHS])
    expected = HierarchicalContrastiveLoss(kind, 0.2, pairs="cumulative")(torch.stack(out["z"], dim=1), PATHS)
    torch.testing.assert_close(loss, expected)


def test_layers_read_the_image_as_last_column(make_cfg, make_batch):
    ids, views, _ = make_batch()
    model = METHODS["himulcone"](make_cfg("himulcone", method_kwargs__granularity="layer"))
    loss, out = ssl_loss(model, [ids, views, PATHS])
    labels = torch.cat((PATHS, ids[:, None]), dim=1)
    expected = HierarchicalContrastiveLoss(temperature=0.2, granularity="layer")(torch.stack(out["z"], 1), labels)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_without_labels_and_instance_it_is_simclr(kind, make_cfg, make_batch):
    ids, views, _ = make_batch()
    cfg = make_cfg(kind, data__dataset="cifar10", data__num_classes=10, method_kwargs__instance=False)
    model = METHODS[kind](cfg)
    views = [view.repeat(1, 3, 1, 1) if view.shape[1] == 1 else view for view in views]
    loss, out = ssl_loss(model, [ids, views, torch.full((len(ids),), -1)])
    torch.testing.assert_close(loss, simclr_loss_func(torch.cat(out["z"]), ids.repeat(2), 0.2))


def test_crossentropy_counts_labelled_images_only(make_cfg, make_batch):
    ids, views, _ = make_batch()
    model = METHODS["crossentropy"](make_cfg("crossentropy"))
    loss, out = ssl_loss(model, [ids, views, PATHS])
    expected = sum(cross_entropy_loss_func(z[PATHS[:, 1] >= 0], PATHS[PATHS[:, 1] >= 0, 1]) for z in out["z"]) / 2
    torch.testing.assert_close(loss, expected)


def test_guided_has_the_distances_of_the_label_tree(make_cfg):
    model = METHODS["guided"](make_cfg("guided"))
    tree, paths = model.prototypes.tree, torch.tensor(model.taxonomy.path_table())
    same_group = (paths[:, None, 0] == paths[:, 0]) & ~torch.eye(10, dtype=torch.bool)
    assert tree.shape == (10, 10) and (tree[same_group] == 2).all()
    assert (tree[~same_group & ~torch.eye(10, dtype=torch.bool)] == 4).all()


@pytest.mark.parametrize("called", [False, True])
def test_frozen_layers_keep_weights_and_statistics(make_cfg, make_batch, called):
    model = METHODS["himulcone"](make_cfg("himulcone", finetune_layers=["layer4", "layer3.0.bn2"]))
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    if called:  # Lightning does not
        model.train()
    optimizer = model.configure_optimizers()
    model.training_step(make_batch(), 0).backward()
    optimizer.step()
    moved = {name for name, value in model.backbone.state_dict().items() if not torch.equal(value, before[name])}
    trained = {name for name in before if name.startswith(("layer4.", "layer3.0.bn2."))}
    assert moved and moved <= trained and {"layer4.0.conv1.weight", "layer3.0.bn2.running_mean"} <= moved
    assert not model.backbone.bn1.training and model.backbone.layer3[0].bn2.training
    assert not model.eval().backbone.layer4.training


def test_wrong_layers_are_refused_with_the_right_ones(make_cfg):
    with pytest.raises(UserError, match=r"'layer5'.*did you mean 'layer\d'.*choose from conv1, bn1, .*layer4"):
        METHODS["simclr"](make_cfg("simclr", finetune_layers=["layer5"]))
    with pytest.raises(UserError, match="finetune_layers has ''"):
        freeze_layers(nn.Sequential(nn.Linear(2, 2)), [""])


@pytest.mark.parametrize("method", ["himulcon", "hicone", "himulcone"])
def test_hex_temperature_is_that_of_the_loss(method, make_cfg, make_batch):
    losses = []
    for changes in (
        {"method_kwargs__temperature": 0.5},
        {"type": "HEX_adaptive", "hex__temperature": 0.5, "warm_epoch": 9},
        {"type": "HEX_adaptive", "hex__temperature": 0.1, "warm_epoch": 9},
    ):
        torch.manual_seed(0)
        losses.append(METHODS[method](make_cfg(method, **changes)).training_step(make_batch(), 0).item())
    assert losses[0] == losses[1] != losses[2]
