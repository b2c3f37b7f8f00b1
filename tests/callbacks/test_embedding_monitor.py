"""The queue holds the last rows of an epoch; what is logged is what the measures say of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from solo.callbacks.watchers import EmbeddingMonitor, FeatureQueue, TrainingDiagnosis, measure
from solo.eval.embedding import alignment, effective_rank, embedding_std, lidar, neighbours_agree, rankme


def _seen(batch, seed=0, width=6):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(2, batch, width, generator=generator)
    return {
        "features": list(torch.randn(2, batch, 9, generator=generator)),
        "projection": [z[0], z[0] + 0.1 * z[1]],
        "groups": torch.arange(batch) % 3,
    }


def test_only_the_last_batches_are_kept():
    queue = FeatureQueue(10)
    kept = []
    for done in range(7):
        if queue.is_due(done, 7, 4, 1):
            kept.append(done)
            queue.add({"x": torch.full((4,), done)}, 1)
    assert kept == [4, 5, 6]  # three batches of 4 hold 10
    assert queue.read()["x"].tolist() == [4] * 4 + [5] * 4 + [6] * 4 and queue.read() == {}
    for done in range(7):  # nobody knows how long the epoch is
        assert queue.is_due(done, float("inf"), 4, 1)
        queue.add({"x": torch.full((4,), done)}, 1)
    assert queue.read()["x"].unique().tolist() == [4, 5, 6]


def test_measures_are_those_of_the_rows():
    seen = _seen(60)
    rows = {f"{space}/{view}": seen[space][view] for space in ("projection", "features") for view in range(2)}
    found = measure({**rows, "groups": seen["groups"]})
    a, b = seen["projection"]
    assert found["online/rankme/projection"] == pytest.approx(rankme(a))
    assert found["online/effective_rank/features"] == pytest.approx(effective_rank(seen["features"][0]))
    assert found["online/lidar/projection"] == pytest.approx(lidar(torch.stack([a, b], dim=1)))
    assert found["online/alignment/projection"] == pytest.approx(alignment(a, b))
    assert found["online/std/projection"] == pytest.approx(embedding_std(a))
    assert 0 <= found["online/superclass_share/projection"] <= 1
    assert not any("knn" in key for key in found)  # there are groups, but no labels
    labels = torch.stack([seen["groups"], torch.full((60,), -1)], dim=1)
    watched = measure({**rows, "labels": labels}, levels=("group", "class"))
    (accuracy,) = (value for key, value in watched.items() if "knn" in key)
    assert watched["online/knn_acc1/group"] == accuracy == neighbours_agree(seen["features"][0], labels)[0]
    names = {key.split("/")[1] for key in found}
    assert names == {
        *("rankme", "effective_rank", "alpha", "std", "uniformity", "alignment", "lidar", "threshold", "selected"),
        "superclass_share",
    }
    assert "online/superclass_share/projection" not in measure({**rows, "groups": torch.full((60,), -1)})
    assert "online/uniformity/features" in measure({"features/0": seen["features"][0]})


@pytest.fixture
def embed(tiny):
    class Embed(tiny):
        """Learns as Tiny does, and shows an embedding that may be one point."""

        def __init__(self, collapsed=False):
            super().__init__()
            self.collapsed = collapsed
            self.point = nn.Parameter(torch.randn(1, 6), requires_grad=False)

        def training_step(self, batch, batch_idx):
            z = (
                self.point.repeat(len(batch[0]), 1)
                if self.collapsed
                else torch.cat([batch[0], batch[0][:, :2] ** 2], 1)
            )
            self.last_views = {"features": [z, z + 0.01], "projection": [z, z + 0.01]}
            return super().training_step(batch, batch_idx)

    return Embed


@pytest.mark.parametrize("collapsed", [True, False])
def test_a_planted_collapse_raises_the_alarm_and_a_healthy_run_does_not(fit, embed, capsys, collapsed):
    diagnosis = TrainingDiagnosis("simclr", 3)
    trainer = fit([EmbeddingMonitor(rows=16, diagnosis=diagnosis)], model=embed(collapsed))
    assert "online/rankme/projection" in trainer.callback_metrics
    assert diagnosis.collapsed == collapsed and capsys.readouterr().out.count("COLLAPSE") == int(collapsed)


def test_a_collapsed_run_can_end_itself(fit, embed):
    assert (
        fit(
            [EmbeddingMonitor(diagnosis=TrainingDiagnosis(), stop_on_collapse=True)], max_epochs=9, model=embed(True)
        ).current_epoch
        == 2
    )
    assert fit([EmbeddingMonitor(diagnosis=TrainingDiagnosis())], max_epochs=4, model=embed(True)).current_epoch == 4


def test_training_is_the_same_with_and_without_it(fit, embed):
    weights = []
    for callbacks in ([], [EmbeddingMonitor(rows=8)]):
        torch.manual_seed(0)
        weights.append(fit(callbacks, model=embed()).model.layer.weight)
    assert torch.equal(*weights)


def test_epochs_between_measurements(fit, embed, monkeypatch):
    online, epochs = EmbeddingMonitor(every=3), []
    monkeypatch.setattr("solo.callbacks.watchers.measure", lambda *_: epochs.append(1) or {"online/x": 1.0})
    fit([online], max_epochs=5, model=embed())
    assert len(epochs) == 3  # epochs 0 and 3, and the last one


def test_a_method_without_features_is_told_about_once(fit, tiny, monkeypatch):
    said = []
    monkeypatch.setattr("solo.callbacks.watchers.rank_zero_warn", said.append)
    assert "online/rankme/features" not in fit([EmbeddingMonitor()], max_epochs=2, model=tiny()).callback_metrics
    assert len(said) == 1 and "nothing can be measured" in said[0]


def test_rows_inside_an_epoch_go_on():
    first, second = EmbeddingMonitor(), EmbeddingMonitor()
    first.queue.add({"x": torch.arange(4)}, 1)
    second.load_process_state(first.process_state())
    assert second.queue.read()["x"].tolist() == [0, 1, 2, 3]


def _one_epoch(rank, world, said):
    """What a process logs after two batches, and what it says."""
    logged = {}
    broadcast = (lambda value: value) if world == 1 else _broadcast
    trainer = SimpleNamespace(
        current_epoch=0,
        max_epochs=1,
        num_training_batches=2,
        world_size=world,
        is_global_zero=rank == 0,
        strategy=SimpleNamespace(broadcast=broadcast),
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}])],
        progress_bar_callback=SimpleNamespace(print=said.append),
        should_stop=False,
    )
    module = SimpleNamespace(log_dict=logged.update)
    online = EmbeddingMonitor(rows=24, diagnosis=TrainingDiagnosis("simclr", 1))
    for step in range(2):
        seen, mine = _seen(12, seed=step), slice(rank * 12 // world, (rank + 1) * 12 // world)
        seen["projection"] = [1 + 1e-4 * view for view in seen["projection"]]
        module.last_views = {
            name: value[mine] if name == "groups" else [v[mine] for v in value] for name, value in seen.items()
        }
        online.on_train_batch_end(trainer, module, None, None, step)
    online.on_train_epoch_end(trainer, module)
    return logged


def _broadcast(value):
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def _worker(rank, port, path):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    said = []
    torch.save({"logged": _one_epoch(rank, 2, said), "said": said}, f"{path}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.thorough
def test_two_processes_log_what_one_does_and_the_first_one_speaks(tmp_path):
    said = []
    alone = _one_epoch(0, 1, said)
    port = torch.randint(20000, 60000, ()).item()
    mp.spawn(_worker, (port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    expected = pytest.approx(alone, rel=1e-5, abs=1e-7, nan_ok=True)
    assert alone and first["logged"] == expected and second["logged"] == expected
    assert len(said) == 1 and first["said"] == said and second["said"] == []
