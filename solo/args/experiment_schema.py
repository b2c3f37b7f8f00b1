"""Every key of `solo experiment`: of its command line, of its file, and of an arm in it, as in `schema`."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from solo.args.fields import REQUIRED, key


@dataclass(kw_only=True, frozen=True)
class ExperimentCfg:
    """Settings of `solo experiment FILE`; all other words are given to every run, such as `data.train_path=FOLDER`."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("file",)

    file: str = key(REQUIRED, "file with the arms, see docs/experiment.md")
    do: Literal["run", "cost", "report"] = key("run", "or only say what it costs, or report what is there")
    out: str | None = key(None, "folder of rows.jsonl, the report and the runs; null: the file's name without .yaml")
    jobs: int = key(1, "runs at once, each in a process of its own; they share the cores and the GPUs", ge=1)
    seeds: tuple[int, ...] | int | None = key(None, "how many, or which; null: the file's", ge=0)
    arms: tuple[str, ...] | None = key(None, "only these, and the baseline; null: all")
    keep: bool = key(True, "keep the folder of each run, with its checkpoints, after its row is written")


@dataclass(kw_only=True, frozen=True)
class ChooseCfg:
    """How the settings of arms with a `grid` are chosen: on a part of the training images, `data.holdout`."""

    share: float = key(0.2, "of the training images: they are left out, and measured", gt=0, lt=1)
    seeds: tuple[int, ...] | int = key(2, "how many, or which", ge=0)
    words: tuple[str, ...] = key([], "of these runs only, behind all others")


@dataclass(kw_only=True, frozen=True)
class ArmCfg:
    """One arm; a list of words is short for `words`."""

    words: tuple[str, ...] = key([], "overrides of the recipe, as on the command line")
    grid: dict[str, Any] | str | None = key(
        None, "key -> list of values to choose from, all combinations; or the arm whose choice is taken over"
    )
    recipe: str | None = key(None, "another recipe than the file's")
    shift: int = key(0, "added to the seeds: other draws; of the baseline's words, a control of what noise does", ge=0)
    placebo: bool = key(False, "can't help: its interval should hold 0, and the report says whether it does")


@dataclass(kw_only=True, frozen=True)
class ExperimentFile:
    """The file: what all runs share, and the arms."""

    title: str | None = key(None, "above the report; null: the file's name")
    recipe: str = key(REQUIRED, "as on the command line of solo pretrain: DATASET NAME, or a path")
    words: tuple[str, ...] = key([], "overrides of every run, as on the command line of solo pretrain")
    evaluate: tuple[str, ...] = key(["measures=[knn,linear]", "intervals=false"], "words of solo evaluate")
    measures: tuple[str, ...] = key(
        REQUIRED, "[classes:]level/number of evaluate.json, such as class/knn_acc1 or unseen:class/map_at_r"
    )
    seeds: tuple[int, ...] | int = key(
        5, "how many, or which: the same for every arm, so that differences are paired", ge=0
    )
    baseline: str = key(REQUIRED, "the arm that the others are compared with")
    budgets: dict[str, list[str]] | None = key(None, "name -> words: everything is done for each; null: one")
    choose: ChooseCfg = key(ChooseCfg, "settings of arms with a grid")
    arms: dict[str, Any] = key(REQUIRED, "name -> list of words, or the keys of an arm")


@dataclass(kw_only=True, frozen=True)
class BenchmarkCfg:
    """Settings of `solo benchmark RUN ...`; other words are those of solo evaluate, for every cell: accelerator=cpu."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("runs",)

    runs: tuple[str, ...] = key(
        REQUIRED, "checkpoints, folders of runs, timm/NAME or torchvision/NAME; the others are compared with the first"
    )
    data: tuple[str, ...] | str = key(
        REQUIRED, "data sets, [digits,glyphs=PATH], or a YAML file: NAME: [words of solo evaluate]"
    )
    protocols: tuple[Literal["knn", "linear", "shots1", "shots10", "labels1", "labels10"], ...] = key(
        ["knn", "linear", "shots1", "shots10", "labels1", "labels10"], "what is measured, see docs/benchmark.md"
    )
    do: Literal["run", "cost", "report"] = key("run", "or only say what it costs, or report what is there")
    out: str = key("benchmark", "folder of rows.jsonl and the report")
    names: tuple[str, ...] | None = key(None, "of the runs in the table; null: of their folders")
    draws: int = key(5, "of few training images; results are averaged", ge=1, le=254)
    k: int = key(20, "kNN: number of neighbours", ge=1)
    temperature: float = key(0.07, "kNN: of the weights exp(cosine / temperature)", gt=0)
    l2: float = key(1e-4, "linear: strength of the L2 penalty where too few images are there to choose it", gt=0)
    linear_steps: int = key(300, "linear: steps of L-BFGS at most", ge=1)
    seed: int = key(0, "of the draws: the same images for every run", ge=0, le=2**32 - 1)
