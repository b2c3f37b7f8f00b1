"""SwAV's queue, prototypes and small crops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from solo.methods import METHODS


def test_the_queue_holds_the_newest_first_and_joins_late(make_cfg: Any, make_batch: Any) -> None:
    model = METHODS["swav"](make_cfg("swav", method_kwargs__epoch_queue_starts=0))
    model.set_late_buffer("queue", torch.zeros(2, 12, 8))
    first = model.view_outputs(make_batch(seed=1))
    alone = [model.sk(p) for p in first["p"]]
    torch.testing.assert_close(model.get_assignments(first["p"]), alone)  # an empty queue takes no part
    model.ssl_loss(first, model.step_of(make_batch(seed=1)))
    second = model.view_outputs(make_batch(seed=2))
    joint = model.get_assignments(second["p"])
    model.ssl_loss(second, model.step_of(make_batch(seed=2)))
    for view in (0, 1):
        z1, z2 = first["z"][view], second["z"][view]
        torch.testing.assert_close(model.queue[view], torch.cat([z2, z1])[:12].detach())
        expected = model.sk(torch.cat([second["p"][view], first["p"][view]]))[:8]
        torch.testing.assert_close(joint[view], expected)


def test_resuming_loads_the_queue(make_cfg: Any, ToyViews: Any, fit: Any, tmp_path: Path) -> None:
    cfg = make_cfg("swav")
    model = METHODS["swav"](cfg)
    assert "queue" not in model.state_dict()
    fit(model, ToyViews(), callbacks=[ModelCheckpoint(tmp_path, save_last=True)], enable_checkpointing=True)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]["queue"]
    assert saved.shape == (2, 16, 8) and saved.any(dim=2).all()
    again = METHODS["swav"](cfg)
    trainer = fit(again, ToyViews(), ckpt_path=tmp_path / "last.ckpt", max_epochs=2)
    assert trainer.current_epoch == 2 and torch.equal(again.queue, saved)


def test_prototypes_rest_in_the_first_epoch(make_cfg: Any, ToyViews: Any, fit: Any) -> None:
    for frozen, moves in ((1, False), (0, True)):
        model = METHODS["swav"](make_cfg("swav", method_kwargs__freeze_prototypes_epochs=frozen))
        before = model.prototypes.weight.detach().clone()
        fit(model, ToyViews(), max_epochs=1)
        assert torch.equal(model.prototypes.weight, before) != moves


def test_small_crops_predict_only(make_cfg: Any, make_batch: Any) -> None:
    model = METHODS["swav"](make_cfg("swav", data__num_large_crops=2, data__num_small_crops=2))
    batch = make_batch(small=2)
    out = model.view_outputs(batch)
    a = model.get_assignments(out["p"][:2])
    pairs = [(i, j) for i in range(2) for j in range(4) if i != j]
    terms = [-(a[i] * (out["p"][j] / 0.1).log_softmax(1)).sum(1).mean() for i, j in pairs]
    torch.testing.assert_close(model.ssl_loss(out, model.step_of(batch)), sum(terms) / 6)
