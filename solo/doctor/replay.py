"""`solo doctor --replay FOLDER`: the step that stopped a run with a non-finite loss, once more, in several precisions.

The folder is the `replay/` of a run: `state.ckpt`, the weights before the step, `batch.pt`, and `finding.json`,
what was seen then. If only the saved precision fails, the numbers are too large for it; if float64 fails as well, the
weights or the batch are broken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from omegaconf import OmegaConf
from rich.console import Console

from solo.callbacks.nonfinite import silent
from solo.callbacks.process_state import each_tensor
from solo.checkpoint import load_checkpoint, saved_settings
from solo.doctor.case import Outcome
from solo.doctor.toy import quietly, toy_trainer
from solo.errors import UserError
from solo.methods import METHODS
from solo.run.report import grid
from solo.untrusted import parse_json

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_WHOLE = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}


def replay(folder: Path, screen: Console) -> int:
    """Run the step again and say what comes out; 1 if the loss is still not finite in the precision of the run, else 0.

    `folder` is the `replay/` of a run, or the run's folder.

    Raises:
        UserError: the folder or its files can't be read.
    """
    state, batch, finding = read(folder)
    precision = str(state["replay"]["precision"])
    screen.print(f"then: {finding.get('text') or finding.get('message') or 'nothing was written down'}", markup=False)
    outcomes = {name: step(state, batch, folder, name) for name in dict.fromkeys((precision, "32-true", "64-true"))}
    rows = ((name, "finite" if one.ok else "NOT FINITE", one.detail) for name, one in outcomes.items())
    title = f"the step of epoch {state.get('epoch')}, once more"
    screen.print(grid(title, ("precision", "result", "what it gives"), rows))
    screen.print(_advice(precision, outcomes), markup=False)
    return 0 if outcomes[precision].ok else 1


def read(folder: Path) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """State, batch and finding; as data only.

    Raises:
        UserError: one of them is missing or damaged.
    """
    folder = folder / "replay" if (folder / "replay").is_dir() else folder
    if not (folder / "state.ckpt").is_file():
        ranks = sorted(path.name for path in folder.glob("rank*") if (path / "state.ckpt").is_file())
        choice = f"choose {', '.join(str(folder / name) for name in ranks)}" if ranks else "give a run's folder replay"
        raise UserError(f"{folder} holds no state.ckpt; {choice}, which a run writes when its loss is not finite")
    state = load_checkpoint(folder / "state.ckpt")
    if "replay" not in state:
        raise UserError(f"{folder / 'state.ckpt'} is a checkpoint, but none that a stopped step has left behind")
    try:
        batch = torch.load(folder / "batch.pt", weights_only=True, map_location="cpu")
    except Exception as error:  # a broken file can make the unpickler raise almost anything
        raise UserError(f"{folder / 'batch.pt'} can't be read; copy it again") from error
    try:
        finding = parse_json((folder / "finding.json").read_bytes())
    except (OSError, ValueError):  # what was seen then is no part of running it again
        finding = {}
    return state, batch, finding


def step(state: dict[str, Any], batch: Any, folder: Path, precision: str) -> Outcome:
    """The training step on the saved batch, in one of Lightning's precisions.

    Raises:
        UserError: the checkpoint doesn't say what it belongs to.
    """
    cfg = OmegaConf.create(saved_settings(state, folder / "state.ckpt")["cfg"])
    if cfg.get("method") not in METHODS:
        raise UserError(f"{folder / 'state.ckpt'} doesn't name one of our methods (method={cfg.get('method')!r})")
    with quietly():
        module: LightningModule = METHODS[cfg.method](cfg)
        module.load_state_dict(state["state_dict"])
        kind = _WHOLE.get(precision)
        module = module.to(kind).train() if kind else module.train()
        module.trainer = toy_trainer(devices=1)
        progress: Any = module.trainer.fit_loop.epoch_progress.current
        progress.processed = int(state.get("epoch", 0))  # it thinks that it is in that epoch
        batch = each_tensor(batch, lambda x: x.to(kind) if kind and x.is_floating_point() else x)
        half = torch.autocast("cpu", _AUTOCAST.get(precision), enabled=precision in _AUTOCAST)
        with silent(module, "log", "log_dict"), half:
            torch.set_rng_state(state["replay"]["rng"]["torch"])
            try:
                loss = module.training_step(batch, int(state["replay"]["batch_idx"]))
            except UserError as error:  # the method refuses the loss itself
                return Outcome(False, str(error))
    value: Any = loss["loss"] if isinstance(loss, dict) else loss
    return Outcome(bool(torch.isfinite(value).all()), f"loss {float(value.detach()):g}")


def _advice(precision: str, outcomes: dict[str, Outcome]) -> str:
    if all(outcome.ok for outcome in outcomes.values()):
        return "every precision gives a finite loss here: the device or its software differs from the run's"
    if outcomes["64-true"].ok:
        wider = "a smaller optimizer.lr or a longer warm-up" if "32" in precision else "precision=32-true or bf16-mixed"
        return f"float64 is finite: the numbers are too large for {precision}; try {wider}"
    return "float64 is not finite either: the weights or the images are broken; try a smaller optimizer.lr"
