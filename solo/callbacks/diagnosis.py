"""Judges the numbers of each epoch: a collapse alarm and a plateau hint, each said once, with likely causes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Unit rows with a mean cosine c have a std (times sqrt(D)) of about sqrt(1 - c): below 0.05 the mean cosine is above
# 0.9975. Runs that learn lie above 0.3; SimSiam without its stop-gradient reaches 0 (Chen, He, 2021, figure 2).
_ONE_POINT = 0.05
# The centred effective rank of rows on a line is 1; of two classes that are all there is, too.
_ONE_LINE = 1.5
_FLAT = 1e-3  # a loss that improved by less than this share of itself stands still


@dataclass(eq=False)
class TrainingDiagnosis:
    """Sees one row an epoch; remembers what it needs and what it said."""

    kept_by: str = "contrast"  # what keeps the method from collapsing (`MethodFacts.collapse`), for the likely causes
    max_epochs: int = 100  # length of the run; a plateau is `max(5, max_epochs / 10)` epochs
    messages: list[str] = field(default_factory=list, init=False)  # everything it said, in order
    collapsed: bool = field(default=False, init=False)  # whether it raised the alarm
    flat: bool = field(default=False, init=False)  # whether it told of a plateau
    _suspect: bool = field(default=False, init=False)
    _losses: list[float] = field(default_factory=list, init=False)
    _peak_lr: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """How long it waits for a better loss."""
        self.patience = max(5, (self.max_epochs or 0) // 10)

    def judge(self, row: Mapping[str, float], is_last: bool = False) -> list[str]:
        """Judge an epoch's `epoch` (0-based), `online/...`, and, if known, `loss` and `lr`; what is to be said now.

        `is_last`: the run ends with it, so that nothing will confirm a suspicion.
        """
        new = [text for text in (self._collapse(row, is_last), self._plateau(row)) if text]
        self.messages += new
        return new

    def _collapse(self, row: Mapping[str, float], is_last: bool) -> str | None:
        """Twice in a row: an untrained network maps all images close together, too."""
        space = "projection" if "online/std/projection" in row else "features"
        std, rank = (row.get(f"online/{name}/{space}", math.nan) for name in ("std", "effective_rank"))
        what = None
        if std < _ONE_POINT:
            what = f"all images have nearly the same {space} (spread {std:.2g}; 0 is one point, 1 is even)"
        elif rank < _ONE_LINE:
            what = f"the {space} of all images lie on a line (effective rank {rank:.2g})"
        confirmed = what is not None and (self._suspect or is_last)
        self._suspect = what is not None
        if not confirmed or self.collapsed:
            return None
        self.collapsed = True
        return f"COLLAPSE, epoch {int(row['epoch']) + 1}: {what}. Likely causes: {self._causes()}"

    def _causes(self) -> str:
        rate = "optimizer.lr too high or its warm-up too short"
        if self.kept_by == "prediction":
            return (
                f"{rate}; the slow network too fast (momentum.base_tau too low); a predictor or projector without "
                "batch normalisation; weight decay too high"
            )
        if self.kept_by == "decorrelation":
            return f"{rate}; the terms for variance and covariance too weak against the one that pulls views together"
        return (
            f"{rate}; the temperature too high; too few negatives (optimizer.batch_size); images or views that are all "
            "alike (look at them with --preview)"
        )

    def _plateau(self, row: Mapping[str, float]) -> str | None:
        loss, rate = row.get("loss", math.nan), row.get("lr", math.nan)
        self._peak_lr = max(self._peak_lr, rate if math.isfinite(rate) else 0.0)
        if not math.isfinite(loss):
            return None
        self._losses.append(loss)
        before, recent = self._losses[: -self.patience], self._losses[-self.patience :]
        # At the end of a schedule a loss comes to rest, as it should.
        if self.flat or self.collapsed or not before or rate < 0.5 * self._peak_lr:
            return None
        if min(recent) < min(before) - _FLAT * abs(min(before)):
            return None
        self.flat = True
        return (
            f"plateau, epoch {int(row['epoch']) + 1}: the training loss ({loss:.4g}) has not improved for "
            f"{self.patience} epochs. Likely: {self._why_flat(row, recent)}"
        )

    @staticmethod
    def _why_flat(row: Mapping[str, float], recent: list[float]) -> str:
        mean = sum(recent) / len(recent)
        alignment = row.get("online/alignment/projection", math.nan)
        if max(recent) - min(recent) > 0.02 * abs(mean):
            return "it goes up and down, so optimizer.lr is too high or the batch too small"
        if alignment < 0.1:
            return "the views of an image nearly coincide, so the augmentations are too weak"
        if alignment > 1:
            return "the views of an image stay far apart, so the augmentations are too strong or optimizer.lr too low"
        return "optimizer.lr too low, or this network can do no better here (a larger one, a lower temperature)"

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, in plain values."""
        names = ("collapsed", "flat", "_suspect", "_losses", "_peak_lr", "messages")
        return {name: list(value) if isinstance(value := getattr(self, name), list) else value for name in names}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave; lists in place, so that whoever holds them sees it."""
        for name, own in self.state().items():
            value = state.get(name, own)
            if not (type(value) is type(own) or {type(value), type(own)} <= {int, float}):
                raise TypeError(f"{name} is {value!r:.60}")
            if isinstance(value, list):
                getattr(self, name)[:] = value
            else:
                setattr(self, name, value)
