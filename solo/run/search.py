"""`solo search RUN query=IMAGE among=FOLDER`: the images that a model finds most alike, by exact cosine similarity."""

import importlib.util
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from solo.analysis.pages import embedded, render
from solo.args.eval_schema import SearchCfg
from solo.data.storage.facts import Problems
from solo.data.storage.reading import ImageReading, as_picture
from solo.errors import BrokenImageError, UserError, reason
from solo.eval.knn import nearest
from solo.files import cell, csv_text, output_file, replacing
from solo.run.inference import image_files
from solo.run.pretrained import PretrainedModel, load_pretrained
from solo.run.report import say, show_table
from solo.run.take import FileFeatures, command, fingerprint
from solo.untrusted import check_zip

_SHOWN = 10  # rows on the screen
_SIDE = 112  # pixels of a small picture
_WIDE = 10  # pictures in a row of a .png


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
    if cfg.index is not None and importlib.util.find_spec("faiss") is None:
        raise UserError("index= needs faiss; install it with pip install faiss-cpu, or leave index out")
    model = model or load_pretrained(cfg.run, cfg.device)
    problems = Problems(cfg.on_error == "skip", "on_error")
    engine = FileFeatures(model, cfg.batch_size, problems)
    queries, asked = engine.all(image_files(cfg.query, problems), "queries")
    if cfg.features is not None:
        paths, keys = _saved(Path(cfg.features).expanduser(), asked.shape[1], model)
    else:
        paths, keys = engine.all(image_files(str(cfg.among), problems), "images")
    engine.say_skipped()
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
        _write_index(keys, paths, index)
    return found


def _saved(file: Path, width: int, model: PretrainedModel) -> tuple[list[Path], Tensor]:
    try:
        if not file.is_file():  # a pipe would be waited for
            raise FileNotFoundError("there is no such file")
        check_zip(file)
        held = np.load(file, allow_pickle=False)
        features, paths = np.asarray(held["features"]), [Path(name) for name in held["paths"].tolist()]
        made_by = re.match(r"[0-9a-f]{16}\b", str(held["facts"])) if "facts" in held else None
    except Exception as error:  # a broken file can make NumPy raise almost anything
        raise UserError(f"features={file} can't be read ({reason(error)}); give an .npz file of solo embed") from error
    if features.ndim != 2 or features.shape != (len(paths), width) or not np.isfinite(features).all():
        raise UserError(
            f"features={file} holds {features.shape} numbers of {len(paths)} images, the model gives {width} each; "
            "embed the images with it"
        )
    if made_by and made_by[0] != fingerprint(model):
        raise UserError(f"features={file} are of another model, or of other sizes; embed the images with this one")
    return paths, torch.from_numpy(features.astype(np.float32, copy=False))


def _write_index(keys: Tensor, paths: Sequence[Path], file: Path) -> None:
    import faiss

    index: Any = faiss.IndexFlatIP(keys.shape[1])
    index.add(F.normalize(keys, dim=1).numpy())
    with replacing(file) as temporary:
        faiss.write_index(index, str(temporary))
    names = file.with_name(f"{file.name}.txt")
    with replacing(names) as temporary:
        temporary.write_text("".join(f"{path}\n" for path in paths), encoding="utf-8", errors="surrogateescape")
    say(f"FAISS index of unit vectors (inner product = cosine): {file}; the images of its rows: {names}")


def _csv(found: Sequence[Found], file: Path, _: ImageReading) -> None:
    rows = [
        {"query": cell(str(one.query), "./"), "rank": rank, "image": cell(str(path), "./"), "cosine": f"{cosine:.6f}"}
        for one in found
        for rank, (path, cosine) in enumerate(zip(one.paths, one.cosines, strict=True), start=1)
    ]
    file.write_text(csv_text(rows), encoding="utf-8", errors="surrogateescape", newline="")


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
            x, y = gap + (column + (place > 0)) * (_SIDE + gap), gap + (block * high + row) * (_SIDE + line + gap)
            sheet.paste(_thumbnail(path, reading), (x, y))
            pen.text((x, y + _SIDE + 1), text, fill="black")
    sheet.save(file, "PNG")


def _pairs(one: Found) -> list[tuple[Path, str]]:
    return [(path, f"{cosine:.3f}") for path, cosine in zip(one.paths, one.cosines, strict=True)]


def _thumbnail(path: Path, reading: ImageReading) -> Image.Image:
    """A square picture; a grey one where the image is gone, as it may be where features were saved earlier."""
    square = Image.new("RGB", (_SIDE, _SIDE), (225, 225, 225))
    try:
        image = as_picture(reading.read(path)).convert("RGB")
    except (BrokenImageError, OSError):
        return square
    scale = _SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC)
    square.paste(image, ((_SIDE - image.width) // 2, (_SIDE - image.height) // 2))
    return square


_WRITERS = {".html": _html, ".png": _png, ".csv": _csv}
main = command("search", SearchCfg, search)
