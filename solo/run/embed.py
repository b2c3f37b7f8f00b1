"""`solo embed RUN FOLDER out=FILE`: features of all images of a folder, in pieces that survive being stopped."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from solo.args.take_schema import EmbedCfg
from solo.callbacks import run_lock
from solo.data.storage.folders import Problems
from solo.errors import UserError
from solo.files import clean, output_file, replacing
from solo.run.inputs import image_files
from solo.run.pretrained import PretrainedModel, load_pretrained
from solo.run.report import say
from solo.run.take import FileFeatures, command, say_skipped
from solo.untrusted import check_zip

_ENDINGS = (".npz", ".npy", ".parquet")


def embed(cfg: EmbedCfg) -> Path:
    """Write the features and return where they are.

    Every `cfg.shard` images a part is put beside the file; a part that is there, of the same images and the same
    model, is not computed again. At the end they become one file, unless `cfg.out` is a folder.
    """
    out = Path(cfg.out).expanduser()
    if out.suffix and out.suffix not in _ENDINGS:
        raise UserError(f"out={cfg.out} has another ending than {', '.join(_ENDINGS)}; without one it is a folder")
    if out.suffix == ".parquet":
        import_parquet()
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
    model, key = engine.model, fingerprint(engine.model)
    shards = [files[start : start + cfg.shard] for start in range(0, len(files), cfg.shard)]
    done = [
        _part(engine, parts / f"{i:05}.npz", shard, key, f"part {i + 1} of {len(shards)}")
        for i, shard in enumerate(shards)
    ]
    for left in set(parts.glob("[0-9]*.npz")) - set(done):  # of an earlier command on more images
        if _mark_of(left):
            left.unlink()
    say_skipped(engine.skipped, say)
    count = sum(len(np.load(file)["paths"]) for file in done)
    if not count:
        raise UserError(f"none of {len(files)} images can be read")
    if out.suffix:
        _join(done, out, count, model.features_dim, key)
        for file in done:
            file.unlink()
    say(f"{count:,} images, {model.features_dim} features each: {out}")
    return out


def fingerprint(model: PretrainedModel) -> str:
    """Changes with the weights and with what is done to an image."""
    digest = hashlib.sha256(json.dumps(repr(model.network)).encode())
    for name, value in sorted(model.backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _part(engine: FileFeatures, file: Path, shard: Sequence[Path], key: str, what: str) -> Path:
    images = "\0".join(f"{path} {path.stat().st_mtime_ns}" for path in shard).encode(errors="surrogateescape")
    mark = f"{key} {hashlib.sha256(images).hexdigest()[:16]}"
    if file.is_file() and _mark_of(file) == mark:
        return file
    features = np.empty((len(shard), engine.model.features_dim), dtype=np.float32)
    names: list[str] = []
    for paths, values in engine.batches(shard, what):
        features[len(names) : len(names) + len(paths)] = values.numpy()
        names += map(str, paths)
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, features=features[: len(names)], paths=np.array(names, dtype=str), facts=np.array(mark))
    return file


def _mark_of(file: Path) -> str:
    """The model and the images of a part; the model alone of a whole file; empty if it isn't one of ours."""
    try:
        check_zip(file)  # all of it: it is read without a look once more
        return str(np.load(file)["facts"])
    except Exception:  # half of one, or a damaged one: computed again
        return ""


def _parts(files: Sequence[Path]) -> Iterator[tuple[np.ndarray, list[str]]]:
    for file in files:
        held = np.load(file)
        yield held["features"], held["paths"].tolist()


def _join(files: Sequence[Path], out: Path, count: int, width: int, key: str) -> None:
    """One file of all parts; a part at a time is in memory, but for .npz, which holds all of it."""
    with replacing(out) as temporary:
        if out.suffix == ".npz":
            features, names = zip(*_parts(files), strict=True)
            with temporary.open("wb") as stream:
                paths = np.array([name for part in names for name in part], dtype=str)
                np.savez(stream, features=np.concatenate(features), paths=paths, facts=np.array(key))
        elif out.suffix == ".npy":
            table = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=(count, width))
            start, lines = 0, list[str]()
            for values, part in _parts(files):
                table[start : start + len(values)] = values
                start += len(values)
                lines += part
            table.flush()
            text = "".join(f"{line}\n" for line in lines)
            out.with_suffix(".txt").write_text(text, encoding="utf-8", errors="surrogateescape")
        else:
            pyarrow, parquet = import_parquet()
            schema = pyarrow.schema([("path", pyarrow.string()), ("features", pyarrow.list_(pyarrow.float32(), width))])
            with parquet.ParquetWriter(temporary, schema) as writer:
                for values, part in _parts(files):
                    column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.reshape(-1)), width)
                    writer.write_table(pyarrow.table([pyarrow.array(map(as_utf8, part)), column], schema=schema))


def as_utf8(name: str) -> str:
    r"""A file name for a format that takes nothing but UTF-8: other bytes spelt out, `\xff`."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def import_parquet() -> tuple[Any, Any]:
    """The two modules of pyarrow; a `UserError` if it isn't installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(".parquet needs pyarrow; install it with pip install 'solo-hex[parquet]'") from error
    return pyarrow, parquet


main = command("embed", EmbedCfg, embed)
