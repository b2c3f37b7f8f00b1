"""Two processes against one: same mean loss, and, averaged, the same gradient."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from solo import distributed
from solo.hex import AdaptivePercentile, FixedThreshold, HEXLoss, Step, Superclass
from solo.losses import Pairs, info_nce

WORLD, BATCH, DIM = 2, 6, 5
POLICIES = {
    "adaptive": AdaptivePercentile(quantile=0.8, warm_epoch=0),
    "fixed": FixedThreshold(Step(0.6, 0.3, 0.1, 1)),
    "superclass": Superclass(),
}


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, WORLD * BATCH, 7, dtype=torch.float64, generator=generator)
    weight = torch.randn(7, DIM, dtype=torch.float64, generator=generator)
    groups = torch.arange(WORLD * BATCH) % 3
    labels = torch.tensor([0, 0, 1, 1, 2, 3, 4, 5, 0, 6, 7, 8])  # a third of the anchors has a positive
    return x, weight, groups, labels


def losses(x, weight, groups, labels):
    """Every loss that gathers, on the rows at hand, with its parameter gradient."""
    for variant in ("reweight", "release"):
        for name, policy in POLICIES.items():
            w = weight.clone().requires_grad_()
            loss_fn = HEXLoss(temperature=0.5, policy=policy, tau_plus=0.02, variant=variant)
            loss = loss_fn(x[0] @ w, x[1] @ w, epoch=2, max_epochs=5, groups=groups)
            yield f"{variant} {name}", loss.detach(), torch.autograd.grad(loss, w)[0], loss_fn.stats.get("threshold")
    w = weight.clone().requires_grad_()
    loss = info_nce(Pairs.from_ids(x[0] @ w, labels), 0.5)
    yield "labels", loss.detach(), torch.autograd.grad(loss, w)[0], None


def worker(rank, port, path):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    x, weight, groups, labels = data()
    mine = slice(rank * BATCH, (rank + 1) * BATCH)
    out = list(losses(x[:, mine], weight, groups[mine], labels[mine]))
    rows = torch.arange(4.0).reshape(2, 2).add(10 * rank).requires_grad_()
    gathered = distributed.gather(rows)
    # A transposed consumer hands back a gradient that is not contiguous.
    (gathered.T.contiguous() * torch.arange(8.0).reshape(2, 4)).sum().backward()
    lines = distributed.gather_plain([f"{rank}.png"] * rank)  # none of the first process
    own = [torch.full((2, 1), float(rank), requires_grad=True), torch.tensor([[rank]]), torch.tensor([rank > 0])]
    later = distributed.gather_later(*own)
    with torch.no_grad():
        distributed.gather_each(torch.zeros(1, requires_grad=True))  # takes them along
    (later()[0] * torch.tensor([[1.0], [2], [3], [4]])).sum().backward()
    together = [*(x.detach() for x in later()), own[0].grad]
    found = {"losses": out, "gathered": gathered.detach(), "grad": rows.grad, "lines": lines, "together": together}
    torch.save(found, f"{path}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    path = tmp_path_factory.mktemp("gloo")
    with torch.random.fork_rng():
        mp.spawn(worker, args=(29500 + torch.randint(0, 2000, ()).item(), str(path)), nprocs=WORLD)
    return [torch.load(path / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def test_loss_gradient_and_threshold_agree_with_one_process(two_processes):
    one = list(losses(*data()))
    assert len(one) == 7
    for index, (name, loss, grad, threshold) in enumerate(one):
        parts = [result["losses"][index] for result in two_processes]
        assert all(part[0] == name for part in parts)
        torch.testing.assert_close(sum(part[1] for part in parts) / WORLD, loss, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(sum(part[2] for part in parts) / WORLD, grad, rtol=1e-10, atol=1e-12)
        if threshold is not None:
            for part in parts:
                torch.testing.assert_close(part[3], threshold, rtol=1e-13, atol=0)


def test_lines_of_all_processes(two_processes):
    assert [result["lines"] for result in two_processes] == [[[], ["1.png"]], []]
    assert distributed.gather_plain(["a"]) == [["a"]]


def test_gather_sums_a_gradient_that_is_not_contiguous(two_processes):
    weights = torch.arange(8.0).reshape(2, 4).T  # what the consumer multiplies the gathered rows (4, 2) with
    for rank, result in enumerate(two_processes):
        assert torch.equal(result["gathered"], torch.tensor([[0.0, 1], [2, 3], [10, 11], [12, 13]]))
        assert torch.equal(result["grad"], WORLD * weights[2 * rank : 2 * rank + 2])


def test_what_waits_travels_with_what_is_gathered_next_whatever_its_type(two_processes):
    for rank, result in enumerate(two_processes):
        rows, ids, flags, grad = result["together"]
        assert (
            rows.tolist() == [[0.0], [0], [1], [1]] and ids.tolist() == [[0], [1]] and flags.tolist() == [False, True]
        )
        assert grad.tolist() == [[[2.0], [4]], [[6.0], [8]]][rank]


def test_one_process_is_the_identity():
    x = torch.ones(2, 2)
    assert distributed.gather(x) is x
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert torch.equal(distributed.all_reduce_mean(x), x)


@pytest.mark.thorough  # another Python
def test_a_program_that_ended_well_has_left_its_group(tmp_path):
    """Else gloo's threads may abort it while Python shuts down, after everything was done."""
    code = (
        "import atexit, torch.distributed as dist; from solo import distributed; "
        "atexit.register(lambda: print('in the group:', dist.is_initialized())); "  # called last
        f"dist.init_process_group('gloo', init_method='file://{tmp_path}/met', rank=0, world_size=1); "
        "distributed.leave_when_the_program_ends(); print('up:', dist.is_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "up: True\nin the group: False\n"), done.stderr
