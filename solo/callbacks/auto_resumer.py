"""Finding the run that was interrupted."""

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from solo.args.config import fill_defaults, to_plain
from solo.args.differences import Difference, differences, may_change
from solo.args.schema import PretrainCfg
from solo.untrusted import parse_json, plain_values


@dataclass
class AutoResumer:
    """Looks for a checkpoint of the same run: same settings, not finished, not older than `max_hours`."""

    checkpoint_dir: str | Path = Path("trained_models")  # of all runs of this kind, `<checkpoint.dir>/<method>`
    max_hours: float = 36  # older checkpoints are not considered
    # for each unfinished run of the same name that the last search didn't take, a line that says why
    passed_over: list[str] = field(default_factory=list, init=False)

    SHOULD_MATCH = [
        *("name", "backbone", "method", "data.dataset", "max_epochs", "optimizer.name", "optimizer.batch_size"),
        *("optimizer.lr", "optimizer.weight_decay", "wandb.project", "wandb.entity", "pretrained_feature_extractor"),
    ]
    # Compared where the candidate's args.json has them; solo-learn's resumer continued the wrong run without.
    ALSO_MATCH = ["method_kwargs", "augmentations", "seed", "scheduler", "momentum", "hex", "optimizer.kwargs"]

    @staticmethod
    def add_and_assert_specific_cfg(cfg: DictConfig) -> DictConfig:
        """Write the defaults of the `auto_resume` section into `cfg` and return it."""
        return fill_defaults(cfg, PretrainCfg, "auto_resume")

    def find_checkpoint(self, cfg: Any) -> tuple[Path, str | None] | tuple[None, None]:
        """The newest checkpoint of the run with this config, typed or not, and its W&B run's id, or `(None, None)`."""
        wanted = to_plain(cfg)
        self.passed_over = []
        candidates = []
        for args in Path(self.checkpoint_dir).rglob("args.json"):
            file = _newest_checkpoint(args.parent)
            finished = (_read(args.parent / "summary.json") or {}).get("status") == "finished"
            if file is not None and not finished:
                candidates.append((file.stat().st_mtime, file, args))
        for modified, file, args in sorted(candidates, reverse=True):
            stored = _read(args)
            hours = (time.time() - modified) / 3600
            if stored is None:
                self.passed_over.append(f"{file} is not continued: {args.name} beside it can't be read")
            elif stored.get("name") != wanted.get("name"):
                continue
            elif other := self._mismatches(wanted, stored):
                self.passed_over.append(f"{file} is not continued: it has other settings ({', '.join(other)})")
            elif hours > self.max_hours:
                self.passed_over.append(
                    f"{file} is not continued: it is {hours:.1f} h old (auto_resume.max_hours={self.max_hours}); "
                    f"resume_from_checkpoint={file} continues it"
                )
            else:
                return file, stored.get("wandb_run_id")
        return None, None

    def _mismatches(self, wanted: dict[str, Any], stored: dict[str, Any]) -> list[str]:
        """The settings that make it another run, `key: old -> new`."""
        also = [key for key in self.ALSO_MATCH if _value(stored, key) is not None]
        found = []
        for key in [*self.SHOULD_MATCH, *also]:
            old, new = _value(stored, key), _value(wanted, key)
            if old != new:
                changes = differences({key: old}, {key: new}) or [Difference(key, old, new)]
                found += [str(one) for one in changes if not may_change(one.key, wanted.get("resume_allow") or [])]
        return found


def stored_wandb_id(folder: Path) -> str | None:
    """The id of the W&B run in a run's folder, if it is one."""
    return (_read(folder / "args.json") or {}).get("wandb_run_id")


def _newest_checkpoint(folder: Path) -> Path | None:
    last, files = folder / "last.ckpt", list(folder.glob("*.ckpt"))
    if last in files:  # by its epoch's name where it has one: that is what `Checkpointer.last_ckpt` says
        return next((file for file in files if file != last and file.samefile(last)), last)
    return max(files, key=lambda file: file.stat().st_mtime, default=None)


def _read(file: Path) -> dict[str, Any] | None:
    """None: there is none, it is damaged, or looks up variables."""
    with contextlib.suppress(OSError, ValueError):
        return dict(plain_values(parse_json(file.read_bytes()), mapping=True))
    return None


def _value(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values
