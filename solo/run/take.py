"""`solo embed`, `predict` and `export`: a trained model on images of one's own; and what `solo search` shares."""

import hashlib
import importlib.util
import json
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor
from torch.nn import functional as F

from solo.analysis.figure import embedded, render
from solo.args.eval_schema import EmbedCfg, ExportCfg, PredictCfg, SearchCfg
from solo.callbacks import run_directory
from solo.data.storage.facts import Problems
from solo.data.storage.reading import ImageReading, as_picture
from solo.errors import BrokenImageError, UserError, reason
from solo.eval.knn import nearest
from solo.files import cell, check_zip, clean, csv_text, output_file, replacing
from solo.run.pretrained import Predictions, PretrainedModel, image_files, load_pretrained
from solo.run.report import say, show_table
from solo.screen import progress

Row = dict[str, Any]
_THREADS = 8  # that decode images; Pillow lets go of Python's lock meanwhile
_ENDINGS = (".npz", ".npy", ".parquet")
_SHOWN = 10  # rows on the screen
_TOGETHER = 4096  # images whose predictions are in memory as tables
_SIDE = 112  # pixels of a small picture
_WIDE = 10  # pictures in a row of a .png


class FileFeatures:
    """Runs a model, by default that of `cfg.run`, over image files, which threads decode meanwhile."""

    def __init__(self, cfg: EmbedCfg | SearchCfg | PredictCfg, model: PretrainedModel | None = None) -> None:
        self.problems, self.batch_size = Problems(cfg.on_error == "skip", "on_error"), cfg.batch_size
        self._cfg, self._model = cfg, model

    @cached_property
    def model(self) -> PretrainedModel:
        """Loaded when it is first asked for, which may fetch it: what is wrong with the images is said before."""
        return self._model or load_pretrained(self._cfg.run, self._cfg.device)

    def features(self, files: Sequence[Path], what: str) -> tuple[list[Path], Tensor]:
        """Those of the files that can be read, and their features (n, F); the others are `problems`."""
        read: list[Path] = []

        def images() -> Iterator[Tensor]:
            with ThreadPoolExecutor(_THREADS) as pool:
                ahead = deque(pool.submit(self.model.read, file) for file in files[: self.batch_size])
                for file, later in zip_longest(progress(files, what), files[self.batch_size :]):
                    image = ahead.popleft()
                    if later is not None:
                        ahead.append(pool.submit(self.model.read, later))
                    try:
                        ready = image.result()
                    except BrokenImageError as error:
                        if not self.problems.skip:
                            raise
                        self.problems.found.append(str(error))
                    else:
                        read.append(file)
                        yield ready

        return read, self.model.embed(images(), self.batch_size)

    def say_skipped(self, read: int) -> None:
        """Name what was left out: the first ones, and how many; a `UserError` if that is everything."""
        skipped = self.problems.found
        if skipped:
            more = [f"and {len(skipped) - 5} more"] if len(skipped) > 5 else []
            say("\n  ".join([f"{len(skipped)} files or folders were skipped:", *skipped[:5], *more]))
        if not read:
            raise UserError("; ".join(["none of the images can be read", *skipped[:1]]))


def fingerprint(model: PretrainedModel) -> str:
    """Changes with the weights and with what is done to an image."""
    digest = hashlib.sha256(json.dumps(repr(model.network)).encode())
    for name, value in sorted(model.backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def embed(cfg: EmbedCfg) -> Path:
    """Write features; each `cfg.shard` images are a part, not computed again for the same images and model."""
    out = Path(cfg.out).expanduser()
    if out.suffix and out.suffix not in _ENDINGS:
        raise UserError(f"out={cfg.out} has another ending than {', '.join(_ENDINGS)}; without one it is a folder")
    if out.suffix == ".parquet":
        _need("pyarrow", ".parquet", "'solo-hex[parquet]'")
    engine = FileFeatures(cfg)
    files = image_files(cfg.images, engine.problems)
    parts = out.with_name(f".{out.name}.parts") if out.suffix else out
    if out.suffix:
        output_file(out)
    parts.mkdir(parents=True, exist_ok=True)
    try:
        with run_directory.held(parts):
            clean(parts, "[0-9]*.npz.*")
            return _written(out, parts, [files[i : i + cfg.shard] for i in range(0, len(files), cfg.shard)], engine)
    finally:
        if out.suffix and parts.is_dir() and not any(parts.iterdir()):
            parts.rmdir()


def _written(out: Path, parts: Path, shards: Sequence[Sequence[Path]], engine: FileFeatures) -> Path:
    width, key = engine.model.features_dim, fingerprint(engine.model)
    done, count = [parts / f"{i:05}.npz" for i in range(len(shards))], 0
    for i, (file, shard) in enumerate(zip(done, shards, strict=True), start=1):
        dated = "\0".join(f"{path} {path.stat().st_mtime_ns}" for path in shard).encode(errors="surrogateescape")
        mark = f"{key} {hashlib.sha256(dated).hexdigest()[:16]}"
        if _mark_of(file) != mark:
            paths, features = engine.features(shard, f"part {i} of {len(shards)}")
            _save(file, features.numpy(), paths, mark)
        count += len(np.load(file)["paths"])
    for left in set(parts.glob("[0-9]*.npz")) - set(done):  # of an earlier command on more images
        if _mark_of(left):
            left.unlink()
    engine.say_skipped(count)
    if out.suffix:
        _join(done, out, count, width, key)
        for file in done:
            file.unlink()
    say(f"{count:,} images, {width} features each: {out}")
    return out


def _save(file: Path, features: Any, paths: Iterable[object], mark: str) -> None:
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, features=features, paths=np.array(list(map(str, paths)), dtype=str), facts=np.array(mark))


def _mark_of(file: Path) -> str:
    """The model and the images of a part; the model alone of a whole file; empty if it isn't one of ours."""
    try:
        check_zip(file)  # all of it: it is read without a look once more
        return str(np.load(file)["facts"])
    except Exception:  # half of one, or a damaged one: computed again
        return ""


def _join(files: Sequence[Path], out: Path, count: int, width: int, key: str) -> None:
    """One file of all parts; a part at a time is in memory, but for .npz, which holds all of it."""
    parts = ((held["features"], held["paths"].tolist()) for held in map(np.load, files))
    if out.suffix == ".npz":
        features, names = zip(*parts, strict=True)
        _save(out, np.concatenate(features), chain(*names), key)
        return
    with replacing(out) as temporary:
        if out.suffix == ".npy":
            table = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=(count, width))
            lines = list[str]()
            for values, part in parts:
                table[len(lines) : len(lines) + len(part)] = values
                lines += part
            table.flush()
            text = "".join(f"{line}\n" for line in lines)
            out.with_suffix(".txt").write_text(text, encoding="utf-8", errors="surrogateescape")
        else:
            import pyarrow
            from pyarrow import parquet

            schema = pyarrow.schema([("path", pyarrow.string()), ("features", pyarrow.list_(pyarrow.float32(), width))])
            with parquet.ParquetWriter(temporary, schema) as writer:
                for values, part in parts:
                    column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.reshape(-1)), width)
                    writer.write_table(pyarrow.table([pyarrow.array(map(_as_utf8, part)), column], schema=schema))


def _as_utf8(name: str) -> str:
    r"""A file name for a format that takes nothing but UTF-8: other bytes spelt out, `\xff`."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _need(package: str, what: str, cure: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{what} needs {package}; install it with pip install {cure}")


@dataclass(frozen=True)
class Found:
    """The images found for one query, most similar first."""

    query: Path  # the image that was looked for
    paths: list[Path]  # those that were found
    cosines: list[float]  # of their features with the query's


def search(cfg: SearchCfg, model: PretrainedModel | None = None) -> list[Found]:
    """Look for the queries with a model (default: that of `cfg.run`), show and write what was found, and return it."""
    if (cfg.among is None) == (cfg.features is None):
        raise UserError("give either among=FOLDER or features=FILE to search in")
    if cfg.out and not cfg.out.endswith(tuple(_WRITERS)):
        raise UserError(f"out={cfg.out} must end in {', '.join(_WRITERS)}")
    out, index = (output_file(name) if name else None for name in (cfg.out, cfg.index))
    if cfg.index is not None:
        _need("faiss", "index=", "faiss-cpu, or leave index out")
    engine = FileFeatures(cfg, model)
    files = image_files(cfg.query, engine.problems)
    model = engine.model
    queries, asked = engine.features(files, "queries")
    if cfg.features is not None:
        paths, keys = _saved(Path(cfg.features).expanduser(), model)
    else:
        paths, keys = engine.features(image_files(str(cfg.among), engine.problems), "images")
    engine.say_skipped(min(len(queries), len(paths)))
    similarity, places = nearest(asked.to(model.device), keys.to(model.device), min(cfg.k, len(keys)))
    near = [[paths[place] for place in row] for row in places.tolist()]
    found = [Found(*one) for one in zip(queries, near, similarity.tolist(), strict=True)]
    first = enumerate(zip(found[0].paths[:_SHOWN], found[0].cosines, strict=False), start=1)
    rows = [{"rank": rank, "cosine": f"{cosine:.4f}", "image": str(path)} for rank, (path, cosine) in first]
    show_table(f"most alike to {found[0].query}, of {len(paths):,} images", rows)
    if out is not None:
        with replacing(out) as temporary:
            _WRITERS[out.suffix](found, temporary, model.reading)
        asked_for = "1 query" if len(found) == 1 else f"{len(found):,} queries"
        say(f"{asked_for}, {len(found[0].paths)} images each: {out}")
    if index is not None:
        import faiss

        vectors: Any = faiss.IndexFlatIP(keys.shape[1])
        vectors.add(F.normalize(keys, dim=1).numpy())
        with replacing(index) as temporary:
            faiss.write_index(vectors, str(temporary))
        names = index.with_name(f"{index.name}.txt")
        with replacing(names) as temporary:
            temporary.write_text("".join(f"{path}\n" for path in paths), encoding="utf-8", errors="surrogateescape")
        say(f"FAISS index of unit vectors (inner product = cosine): {index}; the images of its rows: {names}")
    return found


def _saved(file: Path, model: PretrainedModel) -> tuple[list[Path], Tensor]:
    try:
        if not file.is_file():  # a pipe would be waited for
            raise FileNotFoundError("there is no such file")
        check_zip(file)
        held = np.load(file, allow_pickle=False)
        features = np.asarray(held["features"])
        paths = [Path(name) for name in held["paths"].tolist()]
        made_by = re.match(r"[0-9a-f]{16}\b", str(held["facts"])) if "facts" in held else None
    except Exception as error:  # a broken file can make NumPy raise almost anything
        raise UserError(f"features={file} can't be read ({reason(error)}); give an .npz file of solo embed") from error
    width = model.features_dim
    if features.ndim != 2 or features.shape != (len(paths), width) or not np.isfinite(features).all():
        what = f"holds {features.shape} numbers of {len(paths)} images, the model gives {width} each"
        raise UserError(f"features={file} {what}; embed the images with it")
    if made_by and made_by[0] != fingerprint(model):
        raise UserError(f"features={file} are of another model, or of other sizes; embed the images with this one")
    return paths, torch.from_numpy(features.astype(np.float32, copy=False))


def _csv(found: Sequence[Found], file: Path, _: ImageReading) -> None:
    rows = [
        {"query": str(one.query), "rank": rank, "image": str(path), "cosine": round(cosine, 6)}
        for one in found
        for rank, (path, cosine) in enumerate(zip(one.paths, one.cosines, strict=True), start=1)
    ]
    _write_csv(rows, file)


def _write_csv(rows: Sequence[Row], file: Path) -> None:
    guards = dict.fromkeys(("query", "image", "path"), "./")
    safe = [{cell(name): cell(value, guards.get(name, "'")) for name, value in row.items()} for row in rows]
    file.write_text(csv_text(safe), encoding="utf-8", errors="surrogateescape", newline="")


def _html(found: Sequence[Found], file: Path, reading: ImageReading) -> None:
    def thumbnail(path: Path) -> str:
        picture = BytesIO()
        _thumbnail(path, reading).save(picture, "PNG")
        return embedded(picture.getvalue())

    title = f"{len(found)} queries" if len(found) > 1 else f"Most alike to {found[0].query.name}"
    page = render("found.html", title=title, found=found, pairs=_pairs, thumbnail=thumbnail)
    file.write_text(page, encoding="utf-8")


def _png(found: Sequence[Found], file: Path, reading: ImageReading) -> None:
    most, gap, line = max(len(one.paths) for one in found), 6, 14
    wide, high = min(most, _WIDE) + 1, math.ceil(most / _WIDE)  # of one query's pictures; its own stands before them
    sheet = Image.new("RGB", (wide * (_SIDE + gap) + gap, len(found) * high * (_SIDE + line + gap) + gap), "white")
    pen = ImageDraw.Draw(sheet)
    for block, one in enumerate(found):
        for place, (path, text) in enumerate([(one.query, "query"), *_pairs(one)]):
            row, column = divmod(max(place - 1, 0), _WIDE)
            x = gap + (column + (place > 0)) * (_SIDE + gap)
            y = gap + (block * high + row) * (_SIDE + line + gap)
            sheet.paste(_thumbnail(path, reading), (x, y))
            pen.text((x, y + _SIDE + 1), text, fill="black")
    sheet.save(file, "PNG")


def _pairs(one: Found) -> list[tuple[Path, str]]:
    return [(path, f"{cosine:.3f}") for path, cosine in zip(one.paths, one.cosines, strict=True)]


def _thumbnail(path: Path, reading: ImageReading) -> Image.Image:
    """A square picture; a grey one where the image is gone, as it may be where features were saved earlier."""
    grey, size = (225, 225, 225), (_SIDE, _SIDE)
    try:
        image = as_picture(reading.read(path)).convert("RGB")
        method = Image.Resampling.NEAREST if _SIDE > 2 * max(image.size) else Image.Resampling.BICUBIC
        return ImageOps.pad(image, size, method, grey)
    except (BrokenImageError, OSError, ValueError):  # the last: a line, too thin to be drawn
        return Image.new("RGB", size, grey)


_WRITERS = {".html": _html, ".png": _png, ".csv": _csv}


def predict(cfg: PredictCfg) -> list[Row]:
    """Write the table and return its rows."""
    if not cfg.out.endswith((".csv", ".parquet")):
        raise UserError(f"out={cfg.out} must end in .csv or .parquet")
    if cfg.out.endswith(".parquet"):
        _need("pyarrow", ".parquet", "'solo-hex[parquet]'")
    if cfg.decision == "crm" and cfg.level is not None:
        raise UserError(f"level={cfg.level!r} has no use with decision=crm: it chooses classes; leave one of them out")
    engine = FileFeatures(cfg)
    files, out = image_files(cfg.images, engine.problems), output_file(cfg.out)
    rows: list[Row] = []
    for start in range(0, len(files), _TOGETHER):
        paths, features = engine.features(files[start : start + _TOGETHER], "predictions")
        found = engine.model.classify(features, cfg.k, cfg.level, cfg.within)
        found = replace(found, careful=cfg.decision == "crm")
        rows += ({"path": str(path), **row} for path, row in zip(paths, _rows_of(found), strict=True))
    engine.say_skipped(len(rows))
    with replacing(out) as temporary:
        if out.suffix == ".csv":
            _write_csv(rows, temporary)
        else:
            import pyarrow
            from pyarrow import parquet

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
            told |= {level: None, f"{level}_probability": None}  # the path may end above
            if place < len(path):
                node = found.tree.names[place].index(path[place])
                told |= {level: path[place], f"{level}_probability": float(table[row, node])}
        yield told


def export(cfg: ExportCfg) -> None:
    """Write the folder and say what is in it."""
    done = load_pretrained(cfg.run, cfg.device).export(cfg.to, cfg.out)
    files = ", ".join(sorted(file.name for file in done.folder.iterdir() if not file.name.startswith(".")))
    checked = "read back, features are equal" if done.checked else "not read back: its program is not here"
    say(f"{done.folder}: {files} ({checked})\n\n" + "\n".join(done.usage))
