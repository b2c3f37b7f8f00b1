"""`solo predict RUN FOLDER out=FILE`: a table of images with their best classes, and the best node of every level."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from solo.args.take_schema import PredictCfg
from solo.data.storage.folders import Problems
from solo.errors import UserError
from solo.files import cell, csv_text, output_file, replacing
from solo.run.embed import as_utf8, import_parquet
from solo.run.inputs import image_files
from solo.run.predictions import Predictions
from solo.run.pretrained import load_pretrained
from solo.run.report import say, show_table
from solo.run.take import FileFeatures, command, say_skipped

Row = dict[str, Any]
_SHOWN = 10


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
        found = replace(model.classify(features, cfg.k, cfg.level, cfg.within), careful=cfg.decision == "crm")
        rows += ({"path": str(path), **row} for path, row in zip(paths, rows_of(found), strict=True))
    say_skipped(engine.skipped, say)
    if not rows:
        raise UserError(f"none of {len(files)} images can be read")
    with replacing(out) as temporary:
        if out.suffix == ".csv":
            safe = [{cell(k): cell(x, "./" if k == "path" else "'") for k, x in row.items()} for row in rows]
            temporary.write_text(csv_text(safe), encoding="utf-8", errors="surrogateescape", newline="")
        else:
            pyarrow, parquet = import_parquet()
            named = [{**row, "path": as_utf8(row["path"])} for row in rows]
            parquet.write_table(pyarrow.Table.from_pylist(named), temporary)
    shown = [{"image": Path(row["path"]).name, **dict(list(row.items())[1:7])} for row in rows[:_SHOWN]]
    rounded = [{k: f"{x:.3f}" if isinstance(x, float) else x for k, x in row.items()} for row in shown]
    show_table(f"{len(rows):,} images", rounded)
    say(f"predictions of {len(rows):,} images: {out}")
    return rows


def rows_of(found: Predictions) -> Iterator[Row]:
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


main = command("predict", PredictCfg, predict)
