"""Top-level keys that go to `lightning.pytorch.Trainer`, typed here so that checking them needs no Lightning.

They are checked when given and never filled in: what a recipe leaves out stays Lightning's own default. A test
compares this list with the signature of the installed Lightning.
"""

from collections.abc import Sequence
from typing import Any, Literal

from solo.args.fields import Section, idle, key, keys_of

_Bits = Literal["auto", 16, 32, 64, "16", "32", "64", "bf16"]
_Mixed = Literal["16-mixed", "bf16-mixed", "16-true", "bf16-true", "32-true", "64-true"]
Precision = Literal[_Bits, _Mixed, "transformer-engine", "transformer-engine-float16"]

# Parameters of the Trainer which a program sets itself.
SET_BY_PROGRAM = ("logger", "callbacks", "enable_checkpointing")


class TrainerCfg(Section):
    precision: Precision | None = key(
        None, "number format of the computation; auto: half precision where device and network gain by it"
    )
    sync_batchnorm: bool = key(False, "share batch statistics among processes")
    gradient_clip_val: int | float | None = key(None, "clip gradients to this norm or value", ge=0)
    gradient_clip_algorithm: Literal["norm", "value"] | None = key(None, "what gradient_clip_val bounds")
    deterministic: bool | Literal["warn"] | None = key(None, "only deterministic algorithms")
    benchmark: bool | None = key(None, "let cuDNN search for the fastest algorithm")
    fast_dev_run: bool | int = key(False, "run this many batches only, to try things out", ge=0)
    min_epochs: int | None = key(None, "train at least so many epochs", ge=0)
    max_steps: int = key(-1, "stop after so many optimizer steps; -1: never", ge=-1)
    min_steps: int | None = key(None, "train at least so many optimizer steps", ge=0)
    max_time: str | dict[str, Any] | None = idle(None, "stop after this time, DD:HH:MM:SS")
    limit_train_batches: int | float | None = key(None, "batches of an epoch: a number, or a share of all", ge=0)
    limit_val_batches: int | float | None = key(None, "the same for validation", ge=0)
    limit_test_batches: int | float | None = key(None, "the same for testing", ge=0)
    limit_predict_batches: int | float | None = key(None, "the same for prediction", ge=0)
    overfit_batches: int | float = key(0.0, "train and validate on these batches only", ge=0)
    val_check_interval: int | float | str | dict[str, Any] | None = key(None, "validate within an epoch, too")
    check_val_every_n_epoch: int | None = key(1, "validate every so many epochs", ge=1)
    num_sanity_val_steps: int | None = idle(None, "validation batches before training starts", ge=-1)
    log_every_n_steps: int | None = idle(None, "steps between two log entries", ge=0)
    enable_progress_bar: bool | None = idle(None, "show a progress bar")
    enable_model_summary: bool | None = idle(None, "print the layers")
    inference_mode: bool = key(True, "validate in torch.inference_mode")
    use_distributed_sampler: bool = key(True, "shard the data among processes")
    reload_dataloaders_every_n_epochs: int = key(0, "make new loaders every so many epochs", ge=0)
    profiler: str | None = idle(None, "simple, advanced, pytorch or xla")
    detect_anomaly: bool = idle(False, "find the operation behind a NaN gradient; slow")
    barebones: bool = key(False, "switch off all that costs time besides training")
    plugins: str | tuple[str, ...] | None = key(None, "Lightning plug-ins by name")
    default_root_dir: str | None = idle(None, "Lightning's own folder")
    enable_autolog_hparams: bool = key(True, "log hyper-parameters by itself")
    model_registry: str | None = key(None, "where Lightning uploads checkpoints")


# Keys of the schema that are parameters of the Trainer as well.
RUN_KEYS = ("max_epochs", "accelerator", "devices", "num_nodes", "strategy", "accumulate_grad_batches")
TRAINER_KEYS = (*RUN_KEYS, *keys_of(TrainerCfg))


def count_devices(devices: int | str | Sequence[int], accelerator: str) -> int:
    """How many processes a node will run; torch is imported only where the machine has to be asked.

    `devices` is a number, a list (`[0, 1]`), a text (`"2"`, `"0,1"`), or `"auto"` and -1 for all there are. A CPU
    counts as one device; there a list of n means n processes.
    """
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    if isinstance(devices, str):
        devices = -1 if devices.strip() in ("auto", "-1") else int(devices)
    if not isinstance(devices, int):
        return len(devices)
    if devices >= 0:
        return devices
    if accelerator == "cpu":
        return 1
    import torch

    return max(1, torch.cuda.device_count())
