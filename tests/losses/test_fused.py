"""Kernels give the loss, the gradient and the records of blocks: Triton's interpreter runs them here, without a GPU."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from solo.args.schema import HexCfg
from solo.errors import UserError
from solo.hex import AdaptivePercentile, FixedThreshold, Superclass, hex_nce
from solo.hex.objective import Hex, Step
from solo.hex.policy import Constant
from solo.hex.rows import Action
from solo.losses import fused, info_nce
from solo.losses.pairs import Pairs
from tests.losses.fused_cases import CASES, LOOPS, SPECIAL

ROOT = Path(__file__).parents[2]
PLAIN = {"loops: adaptive, classes", "queue, scaled rows"}
THOROUGH = pytest.mark.thorough
pytest.importorskip("triton")


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of each case that is looked at."""
    out = tmp_path_factory.mktemp("fused") / "found.pt"
    names = [*CASES, *SPECIAL] if request.config.option.everything else [name for name in CASES if name in PLAIN]
    words = [sys.executable, "-m", "tests.losses.fused_cases", str(out), *names]
    subprocess.run(words, check=True, cwd=ROOT, timeout=500, env={**os.environ, "PYTHONPATH": str(ROOT)})
    answers: dict[str, Any] = torch.load(out)
    return answers


def rows(names: Any) -> list[Any]:
    return [pytest.param(name, marks=() if name in PLAIN else THOROUGH) for name in names]


@pytest.mark.parametrize("name", rows(CASES))
def test_equals_blocks(name: str, found: dict[str, Any]) -> None:
    assert not isinstance(found[name], str), found[name]
    mine, blocks, *_ = found[name]
    assert len(mine) == len(blocks)
    # A half holds three digits of the gradient, which is rounded to it.
    near = {"rtol": 1e-5, "atol": 1e-6} if CASES[name].dtype.itemsize > 2 else {"rtol": 1e-2, "atol": 1e-4}
    if name == "nan":
        assert mine[0].isnan() and blocks[0].isnan()
        return
    for one, other in zip(mine, blocks, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True, **near)
    assert all(one.isfinite().all() for one in mine[:2])


@pytest.mark.parametrize("name", rows([f"loops: {name}" for name in LOOPS]))
def test_equals_loops(name: str, found: dict[str, Any]) -> None:
    mine, _, double, loops = found[name]
    assert loops[1].abs().max() > 1e-4
    torch.testing.assert_close(mine[:2], loops, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(double[:2], loops, rtol=1e-9, atol=1e-10)


@THOROUGH
def test_quantiles_and_derivatives(found: dict[str, Any]) -> None:
    torch.testing.assert_close(*found["quantiles"], rtol=0, atol=2e-7)
    assert found["derivative"] is True, found["derivative"]


@THOROUGH
@pytest.mark.parametrize("name", ["gathered", "ring"])
def test_two_processes(name: str, found: dict[str, Any]) -> None:
    assert not isinstance(found[name], str), found[name]
    for process in found[name]:
        for case, mine, blocks in process:
            torch.testing.assert_close(mine, blocks, rtol=1e-5, atol=1e-6, equal_nan=True, msg=f"{case}: %s" % case)


def test_no_gpu_is_said_in_one_line() -> None:
    pairs = dataclasses.replace(Pairs.from_ids(torch.randn(4, 3), torch.arange(2).repeat(2)), fused=True)
    with pytest.raises(UserError, match="needs a CUDA device, not cpu; leave it out"):
        info_nce(pairs, 0.1)


@pytest.mark.parametrize("words", [{"action": Action("pull")}, {"kin": Superclass()}, {"relative": True}])
def test_what_kernels_cant_do_is_refused(words: dict[str, Any]) -> None:
    pairs = dataclasses.replace(Pairs.from_ids(torch.randn(4, 3), torch.arange(2).repeat(2)), fused=True)
    with pytest.raises(UserError, match="performance.fused_loss=true weighs or drops"):
        hex_nce(pairs, FixedThreshold(Constant(0.5), "cosine"), **words)


@pytest.mark.parametrize("policy", ["standard", "adaptive", "fixed"])
def test_on_fake_cuda_tensors_nothing_waits(policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The objective of the settings starts kernels whose tensors are on the device; no answer is asked for."""
    started, card = [], SimpleNamespace(multi_processor_count=132, major=9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)

    def launch(kernel: str, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        assert all(x.device.type == "cuda" and x.is_contiguous() for x in arguments if isinstance(x, Tensor))
        assert constants["PRECISION"] == "tf32x3" and min(grid) > 0
        assert all(x.dtype in (torch.float32, torch.int64, torch.int32) for x in arguments if isinstance(x, Tensor))
        started.append(kernel)

    monkeypatch.setattr(fused, "launch", launch)
    objective = Hex(HexCfg(policy=policy, warm_epoch=0), 0.1, fused=True)
    with FakeTensorMode() as mode:
        z = FakeTensor(mode, torch.empty(2, 300, 128, dtype=torch.bfloat16, device="meta"), torch.device("cuda", 0))
        z.requires_grad_()
        pairs = Pairs.from_views(z, FakeTensor(mode, torch.empty(300, device="meta").long(), torch.device("cuda", 0)))
        loss = objective.replace(lambda pairs: info_nce(pairs, 0.1), pairs, Step(0, 1))
        assert loss.device.type == "cuda"  # its gradient is made with it
    counting = {"standard": 0, "adaptive": 8, "fixed": 1}[policy]
    assert started == [*["counts"] * counting, "statistics", "scores", "gradient", "gradient"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("policy", [None, FixedThreshold(Constant(0.3), "cosine"), AdaptivePercentile(0.99, 0)])
def test_on_a_gpu(policy: Any) -> None:
    """Triton's machine code against float64 on the CPU."""
    torch.manual_seed(0)
    base, ids, found = torch.randn(500, 100), torch.arange(500).repeat(2), []
    rows = torch.cat([base + 0.5 * torch.randn(500, 100) for _ in range(2)])
    for x, kernels in ((rows.cuda(), True), (rows.double(), False)):
        pairs = dataclasses.replace(Pairs.from_ids(x.requires_grad_(), ids), fused=kernels)
        loss = info_nce(pairs, 0.1) if policy is None else hex_nce(pairs, policy)[0]
        found.append([y.detach().double().cpu() for y in (loss, *torch.autograd.grad(loss, x))])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from solo.losses import fused_kernels
words = dict(WIDTH=100, PART=32, ROWS=64, KEYS=32, COLUMNS=128, PRECISION="tf32x3", INSIDE=False, TO_KEYS=False)
words |= dict.fromkeys(("CHOOSES", "NAMED", "WEIGH", "GROUPS", "OWN"), True)
for name in ("statistics", "scores", "gradient", "counts"):
    kernel = getattr(fused_kernels, name)
    kinds = dict.fromkeys((p.name for p in kernel.params), "i32") | dict.fromkeys(words, "constexpr")
    kinds |= dict.fromkeys(("anchors", "keys", "cut", "cuts", "numbers", "terms", "out", "lowest"), "*fp32")
    kinds |= dict.fromkeys(("anchor_ids", "key_ids", "anchor_groups", "key_groups"), "*i64")
    kinds |= dict.fromkeys(("inverse_temperature", "beta", "tau_plus"), "fp32")
    kinds |= {"out": "*i32"} if name == "counts" else {}
    names = [p.name for p in kernel.params]
    source = ASTSource(kernel, {n: kinds[n] for n in names}, {n: words[n] for n in names if n in words})
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8, "enable_fp_fusion": True})
    assert made.asm["cubin"] and made.metadata.shared < 100_000  # of what a block may have on any card since 2020
"""


@THOROUGH
def test_compiles_for_a_gpu() -> None:
    """Triton makes machine code without a GPU; what it does is for the interpreter, and for a GPU, to tell."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "0"}
    subprocess.run([sys.executable, "-c", COMPILE], check=True, timeout=300, env=env)
