"""The callbacks of `online.*`: who measures the embedding, watches it, and guards the loss."""

from __future__ import annotations

from dataclasses import replace

from lightning.pytorch import Callback

from solo.args.schema import PretrainCfg, RunCfg
from solo.callbacks.diagnosis import TrainingDiagnosis
from solo.callbacks.embedding_monitor import EmbeddingMonitor
from solo.callbacks.meter import Meter
from solo.callbacks.nonfinite import NonFiniteGuard
from solo.callbacks.run_directory import RunDirectory
from solo.callbacks.summary import Facts
from solo.methods.catalogue import MethodFacts, facts_of


def watchers(cfg: RunCfg, run: RunDirectory, meter: Meter, facts: Facts) -> tuple[list[Callback], Facts]:
    """The callbacks, to be placed before those that show and write, and the facts with what the diagnosis says."""
    settings = cfg.online if isinstance(cfg, PretrainCfg) else None
    found: list[Callback] = []
    if settings is None or settings.replay:
        found.append(NonFiniteGuard(run))
    if settings is None or not isinstance(cfg, PretrainCfg) or not settings.enabled:
        return found, facts
    known = facts_of(cfg.method) or MethodFacts()
    diagnosis = TrainingDiagnosis(known.collapse, cfg.max_epochs) if settings.alarm else None
    quantile = cfg.hex.quantile
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
