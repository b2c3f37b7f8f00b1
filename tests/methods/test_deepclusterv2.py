"""DeepCluster's memory and its clusters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from solo.errors import UserError
from solo.methods import METHODS


def test_clusters_follow_from_the_memory_and_load_on_resume(
    make_cfg: Any, ToyViews: Any, fit: Any, tmp_path: Path
) -> None:
    cfg = make_cfg("deepclusterv2")
    model = METHODS["deepclusterv2"](cfg)
    saver = ModelCheckpoint(tmp_path, save_last=True)
    first = fit(model, ToyViews(), callbacks=[saver], enable_checkpointing=True, max_epochs=1)
    assert first.callback_metrics["train_deepcluster_loss"] == 0 and model.assignments is None
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert saved["local_memory_index"].tolist() == list(range(32))  # not shuffled
    assert saved["local_memory_embeddings"].shape == (2, 32, 8)
    torch.testing.assert_close(saved["local_memory_embeddings"].norm(dim=-1), torch.ones(2, 32))

    again = METHODS["deepclusterv2"](cfg)
    second = fit(again, ToyViews(), ckpt_path=tmp_path / "last.ckpt", max_epochs=2)
    assert second.callback_metrics["train_deepcluster_loss"] > 0
    assert again.assignments.shape == (2, 32) and (again.assignments >= 0).all()
    for head, prototypes in enumerate(again.prototypes):
        nearest = (saved["local_memory_embeddings"][head] @ prototypes.weight.T).argmax(dim=1)
        assert again.assignments[head].tolist() == nearest.tolist()


def test_without_clusters_the_loss_is_zero_with_a_zero_gradient(make_cfg: Any, make_batch: Any) -> None:
    model = METHODS["deepclusterv2"](make_cfg("deepclusterv2"))
    batch = make_batch()
    loss = model.ssl_loss(model.view_outputs(batch), model.step_of(batch))
    loss.backward()
    assert loss == 0 and not model.projector[0].weight.grad.any()


def test_the_memory_keeps_every_batch_in_its_place(make_cfg: Any) -> None:
    model = METHODS["deepclusterv2"](make_cfg("deepclusterv2"))
    model.set_late_buffer("local_memory_index", torch.zeros(16, dtype=torch.long))
    model.set_late_buffer("local_memory_embeddings", torch.zeros(2, 16, 8))
    z = [torch.ones(8, 8), torch.full((8, 8), 2.0)]
    model.update_memory_banks(torch.arange(20, 28), z, 1)
    assert model.local_memory_index.tolist() == [0] * 8 + list(range(20, 28))
    assert model.local_memory_embeddings[:, :, 0].tolist() == [[0.0] * 8 + [v] * 8 for v in (1.0, 2.0)]


def test_sets_of_different_sizes_are_refused(make_cfg: Any) -> None:
    with pytest.raises(UserError, match=r"num_prototypes=\[3, 4\]"):
        METHODS["deepclusterv2"](make_cfg("deepclusterv2", method_kwargs__num_prototypes=[3, 4]))
