"""`solo embed`, `predict` and `export`: a trained model on images of one's own; and what `solo search` shares."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from solo.args.check import check
from solo.args.compose import read_word
from solo.args.eval_schema import EmbedCfg, ExportCfg, PredictCfg
from solo.args.fields import keys_of
from solo.args.show import help_text
from solo.callbacks import run_lock
from solo.data.storage.folders import Problems
from solo.errors import BrokenImageError, ConfigError, UserError
from solo.files import cell, clean, csv_text, output_file, replacing
from solo.run.inference import Predictions, image_files
from solo.run.pretrained import PretrainedModel, load_pretrained
from solo.run.report import say, show_table
from solo.untrusted import check_zip

Cfg = TypeVar("Cfg")
Row = dict[str, Any]
_THREADS = 8  # that decode images; Pillow lets go of Python's lock meanwhile
_ENDINGS = (".npz", ".npy", ".parquet")
_SHOWN = 10  # rows on the screen


def command(name: str, schema: type[Cfg], run: Callable[[Cfg], object]) -> Callable[[Sequence[str]], int]:
    """What `solo NAME WORDS...` calls: it reads the words into the settings, and runs with them; wrong ones raise."""

    def main(words: Sequence[str]) -> int:
        cfg = read_words(name, schema, words)
        if cfg is not None:
            run(cfg)
        return 0

    return main


def read_words(command: str, schema: type[Cfg], words: Sequence[str]) -> Cfg | None:
    """The settings of a command, or a `ConfigError` with all problems, one a line; None after printing `--help`."""
    known: Any = schema
    if {"-h", "--help"} & set(words):
        places = " ".join(name.upper() for name in known.POSITIONAL)
        about = str(schema.__doc__).strip()
        sys.stdout.write(f"usage: solo {command} {places} [KEY=VALUE ...]\n\n{about}\n\n{help_text(schema)}\n")
        return None
    keys = keys_of(schema)
    values: dict[str, Any] = {}
    free = [name for name in known.POSITIONAL if not any(word.startswith(f"{name}=") for word in words)]
    for word in words:
        if word.split("=", 1)[0].lstrip("+") in keys and "=" in word or not free:
            found = read_word(word, schema)
            if values.get(found.key, found.value) != found.value:
                raise ConfigError(f"{found.key} is given twice, {values[found.key]!r} and {found.value!r}; drop one")
            values[found.key] = found.value
        else:
            values[free.pop(0)] = word
    return settings_of(schema, values)


def settings_of(schema: type[Cfg], values: Mapping[str, Any]) -> Cfg:
    """The settings, or a `ConfigError` with all problems, one a line."""
    checked, problems = check(values, schema)
    if problems:
        raise ConfigError("\n".join(f"{key}{text}" for key, text in problems))
    return schema(**{name: checked[name] for name in keys_of(schema)})


class FileFeatures:
    """Runs a model over image files, which threads decode meanwhile; `problems` has a line on each that is skipped."""

    def __init__(self, model: PretrainedModel, batch_size: int, problems: Problems) -> None:
        self.model, self.batch_size, self.problems = model, batch_size, problems

    def batches(self, files: Sequence[Path], what: str) -> Iterator[tuple[list[Path], Tensor]]:
        """Batches of files that could be read, and their features (B, F)."""
        screen = Console(file=sys.stderr)
        with ThreadPoolExecutor(_THREADS) as pool, Progress(console=screen, disable=not screen.is_terminal) as bar:
            task = bar.add_task(what, total=len(files))
            waiting = [files[start : start + self.batch_size] for start in range(0, len(files), self.batch_size)]
            ready = [pool.submit(self._decode, file) for file in files[: self.batch_size]]
            for batch, following in zip(waiting, [*waiting[1:], []], strict=False):
                images, ready = ready, [pool.submit(self._decode, file) for file in following]
                found = [(file, image.result()) for file, image in zip(batch, images, strict=True)]
                kept = [(file, image) for file, image in found if isinstance(image, Tensor)]
                self.problems.found += [image for _, image in found if isinstance(image, str)]
                if kept:
                    yield [file for file, _ in kept], self.model.embed([image for _, image in kept], self.batch_size)
                bar.advance(task, len(batch))

    def all(self, files: Sequence[Path], what: str) -> tuple[list[Path], Tensor]:
        """The same in one piece; a `UserError` if no image can be read."""
        parts = list(self.batches(files, what))
        if not parts:
            raise UserError(f"none of {len(files)} images can be read: {self.problems.found[-1]}")
        return [file for names, _ in parts for file in names], torch.cat([features for _, features in parts])

    def _decode(self, file: Path) -> Tensor | str:
        try:
            return self.model.read(file)
        except BrokenImageError as error:
            if not self.problems.skip:
                raise
            return str(error)

    def say_skipped(self) -> None:
        """Name what was left out: the first ones, and how many."""
        skipped = self.problems.found
        if skipped:
            shown = "\n".join(f"  {line}" for line in skipped[:5])
            more = f"\n  and {len(skipped) - 5} more" if len(skipped) > 5 else ""
            say(f"{len(skipped)} files or folders were skipped:\n{shown}{more}")


def fingerprint(model: PretrainedModel) -> str:
    """Changes with the weights and with what is done to an image."""
    digest = hashlib.sha256(json.dumps(repr(model.network)).encode())
    for name, value in sorted(model.backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def embed(cfg: EmbedCfg) -> Path:
    """Write the features and return where they are.

    Every `cfg.shard` images a part is put beside the file; one of the same images and model is not computed again.
    """
    out = Path(cfg.out).expanduser()
    if out.suffix and out.suffix not in _ENDINGS:
        raise UserError(f"out={cfg.out} has another ending than {', '.join(_ENDINGS)}; without one it is a folder")
    if out.suffix == ".parquet":
        _import_parquet()
    problems = Problems(cfg.on_error == "skip", "on_error")
    files, model = image_files(cfg.images, problems), load_pretrained(cfg.run, cfg.device)
    parts = out.with_name(f".{out.name}.parts") if out.suffix else out
    if out.suffix:
        output_file(out)
    parts.mkdir(parents=True, exist_ok=True)
    try:
        with run_lock.held(parts):
            clean(parts, "[0-9]*.npz.*")
            return _written(cfg, out, parts, files, FileFeatures(model, cfg.batch_size, problems))
    finally:
        if out.suffix and parts.is_dir() and not any(parts.iterdir()):
            parts.rmdir()


def _written(cfg: EmbedCfg, out: Path, parts: Path, files: Sequence[Path], engine: FileFeatures) -> Path:
    width, key = engine.model.features_dim, fingerprint(engine.model)
    shards = [files[start : start + cfg.shard] for start in range(0, len(files), cfg.shard)]
    done, count = [], 0
    for i, shard in enumerate(shards):
        done.append(parts / f"{i:05}.npz")
        _write_part(engine, done[-1], shard, key, f"part {i + 1} of {len(shards)}")
        count += len(np.load(done[-1])["paths"])
    for left in set(parts.glob("[0-9]*.npz")) - set(done):  # of an earlier command on more images
        if _mark_of(left):
            left.unlink()
    engine.say_skipped()
    if not count:
        raise UserError(f"none of {len(files)} images can be read")
    if out.suffix:
        _join(done, out, key)
        for file in done:
            file.unlink()
    say(f"{count:,} images, {width} features each: {out}")
    return out


def _write_part(engine: FileFeatures, file: Path, shard: Sequence[Path], key: str, what: str) -> None:
    images = "\0".join(f"{path} {path.stat().st_mtime_ns}" for path in shard).encode(errors="surrogateescape")
    mark = f"{key} {hashlib.sha256(images).hexdigest()[:16]}"
    if file.is_file() and _mark_of(file) == mark:
        return
    features = np.empty((len(shard), engine.model.features_dim), dtype=np.float32)
    names: list[str] = []
    for paths, values in engine.batches(shard, what):
        features[len(names) : len(names) + len(paths)] = values.numpy()
        names += map(str, paths)
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, features=features[: len(names)], paths=np.array(names, dtype=str), facts=np.array(mark))


def _mark_of(file: Path) -> str:
    """The model and the images of a part; the model alone of a whole file; empty if it isn't one of ours."""
    try:
        check_zip(file)  # all of it: it is read without a look once more
        return str(np.load(file)["facts"])
    except Exception:  # half of one, or a damaged one: computed again
        return ""


def _join(files: Sequence[Path], out: Path, key: str) -> None:
    """One file of all parts."""
    features = np.concatenate([np.load(file)["features"] for file in files])
    names = np.concatenate([np.load(file)["paths"] for file in files])
    with replacing(out) as temporary:
        if out.suffix == ".npz":
            with temporary.open("wb") as stream:
                np.savez(stream, features=features, paths=names, facts=np.array(key))
        elif out.suffix == ".npy":
            with temporary.open("wb") as stream:
                np.save(stream, features)
            text = "".join(f"{name}\n" for name in names.tolist())
            out.with_suffix(".txt").write_text(text, encoding="utf-8", errors="surrogateescape")
        else:
            pyarrow, parquet = _import_parquet()
            column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(features.reshape(-1)), features.shape[1])
            paths = pyarrow.array([_as_utf8(name) for name in names.tolist()])
            parquet.write_table(pyarrow.table({"path": paths, "features": column}), temporary)


def _as_utf8(name: str) -> str:
    r"""A file name for a format that takes nothing but UTF-8: other bytes spelt out, `\xff`."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _import_parquet() -> tuple[Any, Any]:
    """The two modules of pyarrow; a `UserError` if it isn't installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(".parquet needs pyarrow; install it with pip install 'solo-hex[parquet]'") from error
    return pyarrow, parquet


def predict(cfg: PredictCfg) -> list[Row]:
    """Write the table and return its rows."""
    if not cfg.out.endswith((".csv", ".parquet")):
        raise UserError(f"out={cfg.out} must end in .csv or .parquet")
    if cfg.decision == "crm" and cfg.level is not None:
        raise UserError(f"level={cfg.level!r} has no use with decision=crm: it chooses classes; leave one of them out")
    problems = Problems(cfg.on_error == "skip", "on_error")
    files, model = image_files(cfg.images, problems), load_pretrained(cfg.run, cfg.device)
    out = output_file(cfg.out)
    engine = FileFeatures(model, cfg.batch_size, problems)
    rows: list[Row] = []
    for paths, features in engine.batches(files, "predictions"):
        found = replace(engine.model.classify(features, cfg.k, cfg.level, cfg.within), careful=cfg.decision == "crm")
        rows += ({"path": str(path), **row} for path, row in zip(paths, _rows_of(found), strict=True))
    engine.say_skipped()
    if not rows:
        raise UserError(f"none of {len(files)} images can be read")
    with replacing(out) as temporary:
        if out.suffix == ".csv":
            safe = [{cell(k): cell(x, "./" if k == "path" else "'") for k, x in row.items()} for row in rows]
            temporary.write_text(csv_text(safe), encoding="utf-8", errors="surrogateescape", newline="")
        else:
            pyarrow, parquet = _import_parquet()
            named = [{**row, "path": _as_utf8(row["path"])} for row in rows]
            parquet.write_table(pyarrow.Table.from_pylist(named), temporary)
    shown = [{"image": Path(row["path"]).name, **dict(list(row.items())[1:7])} for row in rows[:_SHOWN]]
    rounded = [{k: f"{x:.3f}" if isinstance(x, float) else x for k, x in row.items()} for row in shown]
    show_table(f"{len(rows):,} images", rounded)
    say(f"predictions of {len(rows):,} images: {out}")
    return rows


def _rows_of(found: Predictions) -> Iterator[Row]:
    """For each image the best names with their probabilities, then the path down the tree with those of its nodes."""
    levels = {level: found.at(level) for level in found.tree.levels} if found.tree.num_levels > 1 else {}
    for row, (best, path) in enumerate(zip(found.best, found.paths(), strict=True)):
        told: Row = {}
        for place, (name, probability) in enumerate(best, start=1):
            told |= {f"best{place}": name, f"probability{place}": probability}
        for place, (level, table) in enumerate(levels.items()):
            node = found.tree.names[place].index(path[place]) if place < len(path) else None
            told[level] = None if node is None else path[place]
            told[f"{level}_probability"] = None if node is None else float(table[row, node])
        yield told


def export(cfg: ExportCfg) -> None:
    """Write the folder and say what is in it."""
    done = load_pretrained(cfg.run, cfg.device).export(cfg.to, cfg.out)
    files = ", ".join(sorted(file.name for file in done.folder.iterdir() if not file.name.startswith(".")))
    checked = "read back, features are equal" if done.checked else "not read back: its program is not here"
    say(f"{done.folder}: {files} ({checked})\n\n" + "\n".join(done.usage))


main_embed = command("embed", EmbedCfg, embed)
main_predict = command("predict", PredictCfg, predict)
main_export = command("export", ExportCfg, export)
