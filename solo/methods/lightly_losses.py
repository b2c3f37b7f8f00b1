"""What the installed `lightly` has to train with: its losses, read off their signatures.

`lightly.loss` imports torch, and is imported only where somebody asks for `method=lightly`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from solo.args.fields import REQUIRED, Problem, check, key, unknown
from solo.errors import UserError


@dataclass(frozen=True)
class Loss:
    """One of them: what its signatures say, and what they don't."""

    settings: type  # as a schema
    inputs: tuple[str, ...]  # that `forward` needs
    how: Literal["pair", "list", "large and small", "rows"] | None  # it takes two views; None: it can't
    teacher: bool = False  # it was published with a slow copy, whose projections are its second input
    predictor: bool = False  # without one it collapses
    projector: bool = True  # there is one between features and loss
    random: bool = False  # it draws numbers, which all processes must draw alike
    unit: bool = False  # it wants rows of length 1, as (N, 1, D)
    state: str | None = None  # name of a matrix (D, D) that it carries from step to step, and doesn't call a buffer
    # settings that follow from the others, `width` standing for the projection's
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_NOT_SAID: dict[str, dict[str, Any]] = {
    "DirectCLRLoss": {"projector": False},
    "LeJEPALoss": {"random": True},
    "MMCRLoss": {"how": "pair", "teacher": True, "unit": True},
    "NegativeCosineSimilarity": {"predictor": True},
    "TiCoLoss": {"teacher": True, "state": "C"},
    "VISRegLoss": {"random": True},
    "WMSELoss": {"how": "rows", "random": True, "given": {"embedding_dim": "width", "num_samples": 2}},
}
_NO_SETTINGS = {
    "gather_distributed": "every loss sees the rows of all processes",
    "memory_bank_size": "that bank is in no checkpoint; method=mocov2plus has a queue that is",
    "embedding_dim": "it is method_kwargs.proj_output_dim",
    "num_samples": "there are two views",
}
_ELSEWHERE = {"DINOLoss": "dino", "SwaVLoss": "swav"}  # methods that have what it needs
_TYPES: dict[str, Any] = {"float": float, "int": int, "bool": bool, "str": str}


@functools.cache
def losses() -> dict[str, Loss]:
    """All that `lightly.loss` exports, by name. Raises a `UserError` if lightly isn't installed."""
    try:
        from lightly import loss
    except ImportError as error:
        raise UserError("method=lightly needs lightly: python -m pip install lightly") from error
    exported = {name: getattr(loss, name) for name in dir(loss)}
    return {name: _loss(name, found) for name, found in exported.items() if hasattr(found, "forward")}


def for_two_views() -> dict[str, Loss]:
    """Those that `method: lightly` trains with."""
    return {name: loss for name, loss in losses().items() if loss.how}


def _loss(name: str, made: Any) -> Loss:
    known = [setting for name, setting in inspect.signature(made).parameters.items() if name not in _NO_SETTINGS]
    free = [setting for setting in known if setting.default is not setting.empty and "Callable" not in _said(setting)]
    fields = [(setting.name, _TYPES.get(_said(setting), Any), key(setting.default, "")) for setting in free]
    parameters = list(inspect.signature(made.forward).parameters.values())[1:]  # without `self`
    inputs = {given.name: _said(given) for given in parameters if given.default is given.empty}
    names, kinds, how = list(inputs), list(inputs.values()), None
    if sorted(names) == ["global_proj", "local_proj"]:
        how = "large and small"
    elif len(names) == 1 and kinds[0].lower().startswith(("list[", "sequence[")):
        how = "list"
    elif len(names) == 2 and names[0][:-1] == names[1][:-1] and all(kind.endswith("Tensor") for kind in kinds):
        how = "pair"  # two tensors that are named alike
    settings = dataclasses.make_dataclass(name, fields, kw_only=True)
    return Loss(settings, tuple(inputs), **{"how": how, **_NOT_SAID.get(name, {})})


def _said(parameter: inspect.Parameter) -> str:
    """Its annotation, which may be a text."""
    said = parameter.annotation
    return said if isinstance(said, str) else inspect.formatannotation(said)


@dataclass(kw_only=True)
class LightlyKwargs:
    """Keys of `method: lightly`: a loss of that package, its settings, and what is put before it."""

    loss: str = key(REQUIRED, "name of a loss for two views; `--help method=lightly` lists them")
    loss_kwargs: dict[str, Any] = key({}, "the loss's settings")
    proj_hidden_dim: int = key(2048, "width of the projector's hidden layers", ge=1)
    proj_output_dim: int | None = key(256, "width of the projection; null: no projector, the loss sees features", ge=1)
    pred_hidden_dim: int | None = key(None, "width of the predictor's hidden layer; null: no predictor", ge=1)
    teacher: bool | None = key(None, "compare with the projections of a slow copy; null: as the loss was published")

    @staticmethod
    def has_teacher(kwargs: Mapping[str, Any]) -> bool:
        """Whether these `method_kwargs` ask for a slow copy, or their loss does."""
        loss, asked = losses().get(str(kwargs.get("loss"))), kwargs.get("teacher")
        return bool(loss and loss.teacher if asked is None else asked)

    @staticmethod
    def problems(kwargs: dict[str, Any]) -> Iterator[Problem]:
        """What is wrong with checked `method_kwargs`; settings of the loss are converted in place."""
        name, at = kwargs["loss"], "method_kwargs."
        loss = losses().get(name)
        if name is None:
            return
        if loss is None:
            yield f"{at}loss", unknown(name, for_two_views())
            return
        if not loss.how:
            alone = len(loss.inputs) == 1
            why = "one view alone, so nothing would pull two together" if alone else "no two views of an image"
            other = _ELSEWHERE.get(name)
            advice = f"take method={other}" if other else f"choose {', '.join(for_two_views())}"
            yield f"{at}loss", f"={name} takes {', '.join(loss.inputs)}: {why}; {advice}"
            return
        given = kwargs["loss_kwargs"] or {}
        for setting in (setting for setting in given if setting in _NO_SETTINGS):
            yield f"{at}loss_kwargs.{setting}", f" is not to be set: {_NO_SETTINGS[setting]}"
        known = {setting: value for setting, value in given.items() if setting not in _NO_SETTINGS}
        checked, found = check(known, loss.settings, f"{at}loss_kwargs.")
        kwargs["loss_kwargs"] = {setting: checked[setting] for setting in known if setting in checked}
        yield from found
        if not loss.projector and kwargs["proj_output_dim"] is not None:
            width = kwargs["proj_output_dim"]
            yield f"{at}proj_output_dim", f"={width}: {name} is a loss of the features themselves; set it to null"
        if loss.predictor and kwargs["pred_hidden_dim"] is None:
            yield f"{at}pred_hidden_dim", f" is missing; without a predictor {name} collapses: give its width"
        for part in ("pred_hidden_dim", "teacher"):
            if loss.how != "pair" and kwargs[part]:
                yield f"{at}{part}", f"={kwargs[part]}: {name} takes all views alike; leave it out"

    @staticmethod
    def notes() -> Iterator[str]:
        """Lines of `--help`, beside the keys."""
        yield "  A loss is one of these, with its own settings, loss_kwargs.NAME=VALUE, and their defaults:"
        for name, loss in for_two_views().items():
            given = (f"{field.name}={field.default}" for field in dataclasses.fields(loss.settings))
            yield f"    {name}({', '.join(given)})"
