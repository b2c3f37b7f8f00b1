"""The Lightning Trainer of a run, and the run's folder, loggers and callbacks: the same for every command."""

import importlib.util
import inspect
import os
import re
import shlex
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from solo import distributed
from solo.args.config import to_plain
from solo.args.origins import display
from solo.args.schema import LinearCfg, PretrainCfg, RunCfg
from solo.backbones.registry import side_of_patch
from solo.callbacks import Checkpointer, Meter, Recorder, RunDirectory, RunProgress
from solo.callbacks.checkpointer import StopRunError
from solo.callbacks.optional import AutoUMAP, ResolutionSchedule, StepProfile, WeightAverage
from solo.callbacks.recorder import Facts
from solo.callbacks.watchers import EmbeddingMonitor, NonFiniteGuard, TrainingDiagnosis
from solo.checkpoint import load_checkpoint
from solo.data.batches.loaders import BatchLoader, end_workers
from solo.data.sources.images import skipped_files
from solo.errors import UserError, explained, reason
from solo.files import file_name, write_text
from solo.methods.catalogue import MethodFacts, facts_of
from solo.run import machine
from solo.run.report import announce, explain, hush, say, show_result
from solo.run.resume import ResumeOrder, SameData, find_resume, fingerprint

_PATIENCE = 5.0  # seconds; W&B's own is two minutes


class SafeCheckpointIO(TorchCheckpointIO):
    """Lightning's reader without the part that can run code."""

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read tensors and plain values into CPU memory; `find_resume` has seen that they are those of a run."""
        return load_checkpoint(path)


@dataclass
class Run:
    """A Trainer with what a command has to know about it."""

    trainer: Trainer
    directory: RunDirectory
    recorder: Recorder
    order: ResumeOrder
    data: SameData
    resume: Path | None

    def fit(
        self,
        model: LightningModule,
        train: DataLoader[Any] | BatchLoader,
        val: DataLoader[Any] | None,
        next_command: Callable[[Path], str] | None = None,
        verdict: Callable[[], Any] | None = None,
    ) -> None:
        """Say what runs, train, say what came out. A stopped run keeps its files and doesn't exit with 0."""
        try:
            announce(self.trainer, model)
            self.order.loader = train
            self.data.found = fingerprint(train.dataset)
            self.trainer.fit(model, train, val, ckpt_path=str(self.resume) if self.resume else None)
        except BaseException as error:
            if isinstance(error, StopRunError):  # all processes stop together
                list_skipped([train, val], self.directory.path)
                self._stopped(f" by {error.reason}, saved after step {self.trainer.global_step:,}")
            elif isinstance(error, (KeyboardInterrupt, SystemExit)) or explain(error) is not None:
                self._stopped()
            if isinstance(error, SIGTERMException):  # Lightning's would exit with 0
                raise SystemExit(128 + signal.SIGTERM) from None
            raise
        else:
            distributed.leave_when_the_program_ends()
            list_skipped([train, val], self.directory.path)
            if self.trainer.is_global_zero and self.recorder.summary:
                if verdict is not None:
                    self.recorder.add("verdict", verdict())
                last = self.directory.path / "last.ckpt"
                command = next_command(last) if next_command and last.is_file() else None
                show_result(self.recorder.summary, self.directory.path, command)
        finally:
            self.directory.close()
            end_workers(train, val)

    def _stopped(self, how: str = "") -> None:
        if not (self.directory.is_open and self.trainer.is_global_zero):
            return
        last, epochs = self.directory.path / "last.ckpt", len(self.recorder.rows)
        text = f"stopped{how}; {epochs} finished epoch{' is' if epochs == 1 else 's are'} kept in {self.directory.path}"
        if last.is_file():
            text += f"\ngo on with the same command and {shlex.quote(f'resume_from_checkpoint={display(last)}')}"
        elif epochs:
            text += ", as numbers only: nothing was saved"
        say(text)


def list_skipped(loaders: Sequence[DataLoader[Any] | BatchLoader | None], folder: Path) -> None:
    """List the images that `data.on_error=skip` left out, in all processes (each calls it), in `skipped.txt`."""
    own = [line for loader in loaders if loader is not None for line in skipped_files(loader.dataset)]
    lines = sorted({line for lines in distributed.gather_plain(own) for line in lines})
    if lines:  # of all processes, on the first one
        write_text(folder / "skipped.txt", "".join(f"{line}\n" for line in lines))
        say(f"data.on_error=skip: {len(lines)} files were skipped, listed in {folder / 'skipped.txt'}")


def prepare(cfg: PretrainCfg | LinearCfg, kind: str, facts: Facts, model: LightningModule) -> Run:
    """Build the Trainer, with the run's folder in `checkpoint.dir/kind`; the model learns what is decided."""
    hush(workers=cfg.data.workers > 0)
    root = Path(cfg.checkpoint.dir).expanduser() / file_name(kind)
    resume, wandb_id, stored = find_resume(cfg, root)
    before = resume.parent if resume else None
    device = machine.compute_device(cfg)
    cfg = machine.decide_precision(cfg, model, device, stored)
    facts = replace(facts, cfg=to_plain(cfg))
    continued = resume is not None and resume.resolve().parent.parent == root.resolve()
    directory, meter = RunDirectory(root, before.name if before and continued else None), Meter()
    watching, facts = watchers(cfg, directory, meter, facts)
    events = cfg.tensorboard.enabled and importlib.util.find_spec("tensorboard") is not None
    if cfg.tensorboard.enabled and not events:
        say("TensorBoard isn't installed (pip install tensorboard); metrics.csv holds the same numbers")
    recorder = Recorder(cfg, directory, meter, facts, before and before / "metrics.csv", tensorboard=events)
    order, data = ResumeOrder(), SameData(directory, before, cfg.resume_allow)
    callbacks: list[Callback] = [order, data, meter, *watching, machine.Starving(meter, cfg.data.workers)]
    if cfg.progress != "off":
        callbacks.append(RunProgress(meter, bar=cfg.progress == "rich"))
    if cfg.checkpoint.enabled:
        own = ("enabled", "dir", "ema")
        options = {key: value for key, value in to_plain(cfg.checkpoint).items() if key not in own}
        callbacks += [WeightAverage(directory, cfg.checkpoint.ema)] if cfg.checkpoint.ema is not None else []
        callbacks.append(Checkpointer(cfg, root, run=directory, max_time=cfg.trainer.get("max_time"), **options))
    if isinstance(cfg, PretrainCfg) and cfg.data.resolution_schedule:
        callbacks.append(ResolutionSchedule(cfg.data.resolution_schedule, side_of_patch(model.backbone)))
    if isinstance(cfg, PretrainCfg) and cfg.auto_umap.enabled:
        pictures, how = Path(cfg.auto_umap.dir).expanduser() / root.name, cfg.auto_umap
        drawn: dict[str, Any] = {"keep_previous": True, "embedding": how.embedding, "run": directory}
        callbacks.append(AutoUMAP(file_name(str(cfg.name)), pictures, how.frequency, **drawn))
    callbacks += [*([StepProfile(directory)] if cfg.performance.profile else []), recorder]
    strategy: str | Strategy = machine.Sharded() if cfg.strategy in ("fsdp", "fsdp2") else cfg.strategy or "auto"
    if strategy == "ddp":
        exact = isinstance(cfg, PretrainCfg) and cfg.accumulate == "exact"
        strategy = machine.ddp_strategy(exact, ours=type(model).__module__.startswith("solo."))
    devices = machine.trainer_devices(cfg)  # refused before a logger opens a run elsewhere
    loggers = [wandb_logger(cfg, root, wandb_id if continued else None)] if cfg.wandb.enabled else []
    loggers += [_mlflow_logger(cfg, root, directory.run_id)] if "mlflow" in (cfg.logger or ()) else []
    loggers += [TrackioLogger(cfg)] if "trackio" in (cfg.logger or ()) else []
    synced = [machine.SyncedNorms(gpu=device.type != "cpu")] if cfg.trainer.get("sync_batchnorm") else []
    options = {
        **trainer_options(cfg),
        "devices": devices,
        "strategy": strategy,
        "plugins": [SafeCheckpointIO(), *synced],
        "logger": loggers,
        "callbacks": callbacks,
        "enable_checkpointing": False,
        "enable_progress_bar": cfg.progress != "off",
        "sync_batchnorm": False,  # `SyncedNorms` does it
    }
    try:
        trainer = Trainer(**options)
    except (MisconfigurationException, ValueError, TypeError, ModuleNotFoundError) as error:
        raise UserError(f"Lightning refuses the settings: {' '.join(str(error).split())}") from error
    machine.check_launch(cfg, trainer)
    return Run(trainer, directory, recorder, order, data, resume)


def trainer_options(cfg: RunCfg) -> dict[str, Any]:
    """The top-level keys of `cfg` that are parameters of the installed `Trainer`, without those of `prepare`."""
    known = {*inspect.signature(Trainer.__init__).parameters}
    ours = {"devices", "logger", "strategy"}
    options = {key: value for key, value in to_plain(cfg).items() if key in known - ours}
    if isinstance(cfg, PretrainCfg) and cfg.accumulate == "exact":  # the model takes the parts itself
        options["accumulate_grad_batches"] = 1
    if cfg.checkpoint.enabled:  # the Checkpointer keeps the limit, and drops nothing of the running epoch
        options.pop("max_time", None)
    if machine.compute_device(cfg).type == "cuda" and not options.get("deterministic"):
        options.setdefault("benchmark", True)  # views have one size or two: cuDNN's search for the fastest pays
    return {"enable_model_summary": False, **options}


def watchers(cfg: RunCfg, run: RunDirectory, meter: Meter, facts: Facts) -> tuple[list[Callback], Facts]:
    """The callbacks, to be placed before those that show and write, and the facts with what the diagnosis says."""
    if not isinstance(cfg, PretrainCfg):
        return [NonFiniteGuard(run)], facts
    settings, quantile = cfg.online, cfg.hex.quantile
    found: list[Callback] = [NonFiniteGuard(run)] if settings.replay else []
    if not settings.enabled:
        return found, facts
    known = facts_of(cfg.method) or MethodFacts()
    diagnosis = TrainingDiagnosis(known.collapse, cfg.max_epochs) if settings.alarm else None
    found.append(EmbeddingMonitor(settings.rows, settings.every, quantile, diagnosis, settings.stop_on_collapse, meter))
    how = (
        f"at the end of the last epoch, of its last batches, at least {settings.rows} images (or all): "
        "augmented training views in train mode, the first view for rank and spread; LiDAR with 2 views an image; "
        f"threshold: mean {quantile} quantile of the cosines of up to 1,024 of these rows with all of them; "
        "kNN: features of the first view, leave-one-out among these rows, up to 1,024 of them asked, 20 neighbours by "
        "cosine, votes weighted by exp(cosine / 0.07)"
    )
    extra = facts.extra if diagnosis is None else {**facts.extra, "alarms": diagnosis.messages}
    return found, replace(facts, protocol={**facts.protocol, "online": how}, extra=extra)


def _mlflow_logger(cfg: PretrainCfg | LinearCfg, root: Path, run_id: str | None) -> Logger:
    """Lightning's logger for MLflow; MLFLOW_TRACKING_URI says where, else below `root`."""
    with explained("logger=[mlflow] can't be used", "see MLFLOW_TRACKING_URI, or leave it out"):
        from lightning.pytorch.loggers import MLFlowLogger

        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "solo")
        known = run_id if run_id and re.fullmatch("[0-9a-f]{32}", run_id) else None  # MLflow's own form
        logger = MLFlowLogger(experiment, run_name=str(cfg.name), save_dir=str(root / "mlruns"), run_id=known)
        if known is None:
            logger.log_hyperparams(to_plain(cfg))
        return logger


class TrackioLogger(DummyLogger):
    """Metrics to Trackio's local store, which `trackio show` draws; TRACKIO_PROJECT names the project."""

    def __init__(self, cfg: PretrainCfg | LinearCfg) -> None:
        super().__init__()
        self._cfg = cfg
        self._run: Any = None

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._run is None:
            import trackio

            project = os.environ.get("TRACKIO_PROJECT", "solo")
            self._run = trackio.init(project=project, name=str(self._cfg.name), config=to_plain(self._cfg))
        self._run.log(dict(metrics), step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._run is not None:
            self._run.finish()


def wandb_logger(cfg: PretrainCfg | LinearCfg, root: Path, run_id: str | None) -> Logger:
    """Weights & Biases, offline where nobody answers."""
    cure = "log in with `wandb login`, or set wandb.offline=True or wandb.enabled=False"
    with explained("wandb.enabled=True, but W&B can't be used", cure):
        import wandb
        from lightning.pytorch.loggers import WandbLogger

        root.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {"resume": "allow", "id": run_id} if run_id else {}
        server = str(os.environ.get("WANDB_BASE_URL") or wandb.Settings().base_url)
        why = None if cfg.wandb.offline or os.environ.get("WANDB_MODE") else out_of_reach(server)
        if why is not None:
            say(f"W&B can't be reached ({why}): the run goes on offline; upload it with: wandb sync {root}/wandb/*")
        options |= {"name": str(cfg.name), "project": cfg.wandb.project, "entity": cfg.wandb.entity}
        offline = cfg.wandb.offline or why is not None
        logger = WandbLogger(offline=offline, save_dir=root, config=to_plain(cfg), **options)
        _ = logger.experiment  # signs in now, on the first process
        return logger


def out_of_reach(url: str) -> str | None:
    """Why nobody answers at an address, or at the proxy on the way, in some seconds; None if one does."""
    place = urlsplit(getproxies().get("https") or url)
    found: list[str | None] = []

    def connect() -> None:
        try:
            port = place.port or (80 if place.scheme == "http" else 443)
            socket.create_connection((place.hostname or "", port), timeout=_PATIENCE).close()
            found.append(None)
        except (OSError, ValueError) as error:
            found.append(reason(error))

    thread = threading.Thread(target=connect, daemon=True)  # looking up a name has no time limit of its own
    thread.start()
    thread.join(_PATIENCE)
    return found[0] if found else f"no answer within {_PATIENCE:g} s"
