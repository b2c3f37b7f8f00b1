"""The queue: ring, labels, look-up, and the same content on all processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn import functional as F

from solo import distributed
from solo.errors import UserError
from solo.nn.memory import QueueMixin

WORLD = 2


class Owner(QueueMixin):
    def __init__(self, size: int = 6, dim: int = 3, **kwargs: Any) -> None:
        super().__init__()
        self.make_queue(size, dim, **kwargs)


def numbered(start: int, count: int, dim: int = 3) -> Tensor:
    return torch.arange(start, start + count).float()[:, None].expand(count, dim)


def test_buffers_start_random_unit_and_unlabelled() -> None:
    one, two = Owner(), Owner(views=2, labels=("queue_y", "queue_index"))
    assert {name: tuple(value.shape) for name, value in two.state_dict().items()} == {
        "queue": (2, 3, 6),
        "queue_ptr": (1,),
        "queue_y": (6,),
        "queue_index": (6,),
    }
    torch.testing.assert_close(one.queue.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(two.queue.norm(dim=1), torch.ones(2, 6))
    assert one.queue_y.tolist() == [-1] * 6 and one.queue_y.dtype == torch.long


def test_the_newest_rows_replace_the_oldest_in_place() -> None:
    owner = Owner()
    memory = owner.queue.data_ptr()
    for start in range(0, 10, 2):
        owner.dequeue_and_enqueue(numbered(start, 2), torch.tensor([start, start + 1]))
    assert owner.queue[:, 0].tolist() == [6, 7, 8, 9, 4, 5] == owner.queue_y.tolist()
    assert owner.queue_ptr.tolist() == [4] and owner.queue.data_ptr() == memory
    # another batch size after a resume: the pointer isn't at a multiple of it, and the rows wrap around
    owner.dequeue_and_enqueue(numbered(10, 3), torch.arange(10, 13))
    assert owner.queue[:, 2].tolist() == [12, 7, 8, 9, 10, 11] == owner.queue_y.tolist()
    assert owner.queue_ptr.tolist() == [1]


def test_one_bank_a_view() -> None:
    owner = Owner(views=2)
    for start in (0, 3, 6):
        owner.dequeue_and_enqueue(
            torch.stack([numbered(start, 3), -numbered(start, 3)]), torch.arange(start, start + 3)
        )
    assert owner.queue[0, 0].tolist() == [6, 7, 8, 3, 4, 5] and torch.equal(owner.queue[0], -owner.queue[1])
    assert owner.banks.shape == (2, 6, 3) and owner.banks.data_ptr() == owner.queue.data_ptr()


@pytest.mark.parametrize("batch", [4, 7])
def test_a_queue_that_does_not_fit_names_the_numbers(batch: int) -> None:
    for error in (AssertionError, UserError):
        with pytest.raises(error, match=rf"queue_size=6 is no multiple of the batch of all processes, {batch}; take"):
            Owner().dequeue_and_enqueue(numbered(0, batch))


def test_nearest_neighbours() -> None:
    owner = Owner(50, 8)
    z = F.normalize(torch.randn(7, 8), dim=1)
    places = owner.nearest(z, 5)
    for row, found in zip(z, places.tolist(), strict=True):
        cosines = [float(row @ entry) for entry in owner.queue]
        assert found == sorted(range(50), key=lambda place: -cosines[place])[:5]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(owner.nearest(z, 5), places)
        assert owner.nearest(z.bfloat16()).shape == (7, 1)


def test_neighbour_accuracy_counts_labelled_rows() -> None:
    owner = Owner()
    owner.queue_y[:3] = torch.tensor([4, 5, 4])
    places = torch.tensor([0, 1, 2, 3, 3])
    for targets, share in ((torch.tensor([4, 4, 4, 0, -1]), 0.5), (torch.full((5,), -1), 0)):
        labelled = distributed.per_process((targets >= 0).sum())
        assert owner.neighbour_accuracy(places, targets, labelled) == share


def test_a_queue_without_labels_loads_and_a_missing_queue_is_still_missing() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Owner()

    old, new = Outer(), Outer()
    state = {name: value for name, value in old.state_dict().items() if name != "inner.queue_y"}
    new.inner.queue_y.fill_(3)
    new.load_state_dict(state)
    assert torch.equal(new.inner.queue, old.inner.queue) and new.inner.queue_y.tolist() == [-1] * 6
    assert "inner.queue_y" not in state
    with pytest.raises(RuntimeError, match="queue_y"):
        new.load_state_dict({})


def worker(rank: int, port: int, path: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    torch.manual_seed(0)
    one, two = Owner(8), Owner(8, views=2)
    for step in range(3):
        rows = numbered(10 * rank + 2 * step, 2)
        one.dequeue_and_enqueue(rows, rows[:, 0].long())
        two.dequeue_and_enqueue(torch.stack([rows, -rows]), rows[:, 0].long())
    with pytest.raises(AssertionError, match="all processes, 6"):
        one.dequeue_and_enqueue(numbered(0, 3))
    torch.save([one.state_dict(), two.state_dict()], f"{path}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_hold_the_same_rows_in_rank_order(tmp_path: Any) -> None:
    with torch.random.fork_rng():
        mp.spawn(worker, args=(31500 + torch.randint(0, 2000, ()).item(), str(tmp_path)), nprocs=WORLD)
    (one, two), other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD))
    for mine, theirs in zip((one, two), other, strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert one["queue"][:, 0].tolist() == [4, 5, 14, 15, 2, 3, 12, 13] == one["queue_y"].tolist()
    assert torch.equal(two["queue"][0].T, one["queue"]) and torch.equal(two["queue"][1].T, -one["queue"])
