from __future__ import annotations

import inspect
import subprocess
import sys

import lightning
import pytest
from lightning.pytorch import Trainer

from solo.args.fields import keys_of
from solo.args.parse import count_devices
from solo.args.schema import TrainerCfg

# Keys of the schema that are parameters of the Trainer as well, and those which a program sets itself.
RUN_KEYS = ("max_epochs", "accelerator", "devices", "num_nodes", "strategy", "accumulate_grad_batches")
TRAINER_KEYS = (*RUN_KEYS, *keys_of(TrainerCfg))
SET_BY_PROGRAM = ("logger", "callbacks", "enable_checkpointing")
# Not in every version that is supported.
_NEWER = {"enable_autolog_hparams", "model_registry"}
_KNOWN_MINOR = (2, 6)


def test_list_equals_the_installed_signature():
    there = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    assert set(TRAINER_KEYS) - there <= _NEWER
    if tuple(int(part) for part in lightning.__version__.split(".")[:2]) <= _KNOWN_MINOR:
        assert there <= {*TRAINER_KEYS, *SET_BY_PROGRAM}


@pytest.mark.parametrize(
    ("devices", "count"),
    [(1, 1), (3, 3), ([0], 1), ([0, 2], 2), ("2", 2), ("0,1", 2), ("auto", 1), (-1, 1), ("-1", 1)],
)
def test_count_devices_on_a_cpu(devices, count):
    assert count_devices(devices, "cpu") == count


def test_count_devices_of_the_machine():
    assert count_devices("auto", "auto") >= 1


def test_torch_is_only_imported_to_ask_the_machine():
    code = (
        "import sys; from solo.args.parse import count_devices\n"
        "count_devices([0, 1], 'gpu')\n"
        "count_devices('auto', 'cpu')\n"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
