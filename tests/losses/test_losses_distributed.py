"""Every loss on two processes against one: same mean value and, averaged, the same gradient."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from solo.hex.relatives import Bank
from solo.losses import DINOLoss
from tests.losses.zoo import CASES, TABLE, N

WORLD = 2


def losses(rank=None):
    """Loss and gradient of a shared layer, for every case; the whole batch or that of one process."""
    for name, case in (CASES | TABLE).items():
        inputs = list(case.inputs(WORLD * N))
        if rank is not None:
            inputs = [
                x if dim is None else x.narrow(dim, rank * N, N) for x, dim in zip(inputs, case.batch, strict=True)
            ]
        width = inputs[0].shape[-1]
        weight = (torch.eye(width) + torch.arange(width**2).reshape(width, width).sin() / 3).double().requires_grad_()
        for i in range(case.moving):
            inputs[i] = inputs[i] @ weight
        loss = case.func(*inputs)
        yield name, loss.detach(), torch.autograd.grad(loss, weight)[0]


def center(rank=None):
    teacher = torch.arange(WORLD * 8.0).reshape(WORLD, 4, 2).square()
    module = DINOLoss(2, 0.5, 0.7, 10, 20)
    rows = teacher.flatten(0, 1) if rank is None else teacher[rank]
    module(torch.zeros_like(rows), rows)
    return module.center


def bank(rank=None):
    """The bank after images of all processes were stored."""
    kept, ids = Bank(drawn=2), torch.tensor([[3, 0], [1, 5]])
    kept.table = torch.zeros(6, 2, dtype=torch.long)
    rows = torch.arange(8.0).reshape(2, 2, 2) + 1
    kept.store(*((ids.flatten(), rows.flatten(0, 1)) if rank is None else (ids[rank], rows[rank])))
    return kept.rows


def worker(rank, port, path):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    torch.save({"losses": list(losses(rank)), "center": center(rank), "bank": bank(rank)}, f"{path}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    path = tmp_path_factory.mktemp("gloo")
    with torch.random.fork_rng():
        mp.spawn(worker, args=(31500 + torch.randint(0, 2000, ()).item(), str(path)), nprocs=WORLD)
    return [torch.load(path / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def test_loss_and_gradient_agree_with_one_process(two_processes):
    for index, (name, loss, grad) in enumerate(losses()):
        parts = [result["losses"][index] for result in two_processes]
        assert all(part[0] == name for part in parts)
        assert grad.abs().max() > 1e-4, name
        for mine, whole in ((1, loss), (2, grad)):
            average = sum(part[mine] for part in parts) / WORLD
            torch.testing.assert_close(average, whole, rtol=1e-9, atol=1e-11, msg=lambda m, name=name: f"{name}: {m}")


def test_the_centre_is_that_of_all_processes(two_processes):
    for result in two_processes:
        torch.testing.assert_close(result["center"], center())


def test_the_bank_has_the_images_of_all_processes(two_processes):
    for result in two_processes:
        torch.testing.assert_close(result["bank"], bank())
