"""Shared by all tests: what a plain `python -m pytest` takes, and one thread a process.

`python -m pytest` takes minutes and has every kind of check; `--all` is the whole. Who names a file, a test or `-k`
gets all of it. Two marks say what is left out:

- `thorough`: this test, or this row of a parametrised one;
- `sampled(n)`: all but every n-th row of a parametrised test, other rows for each test function, so that functions that
  share their parameters have most rows between them.
"""

from __future__ import annotations

import ctypes
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test waits for a network


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", dest="everything", help="all tests, also those that take long")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # a process of xdist is told by the first one
        return
    named = any(Path(arg.partition("::")[0]).is_file() for arg in config.args)
    config.option.everything |= named or bool(config.option.keyword)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.everything:
        return
    rows: dict[str, int] = {}
    left_out = []
    for item in items:
        function = item.nodeid.partition("[")[0]
        row = rows.get(function, zlib.crc32(function.encode()))  # another start for each
        rows[function] = row + 1
        sampled = item.get_closest_marker("sampled")
        if item.get_closest_marker("thorough") or (sampled and row % sampled.args[0]):
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


@pytest.fixture
def no_root() -> Iterator[None]:
    """Permissions of files count for this test, also where root runs it: that thread's rights to override them rest."""
    if sys.platform != "linux":
        pytest.skip("capabilities are Linux's")
    library, head, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert library.capget(head, sets) == 0
    before, sets[0] = sets[0], sets[0] & ~0b110  # effective CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert library.capset(head, sets) == 0
    yield
    sets[0] = before
    assert library.capset(head, sets) == 0
