"""Files that are cut off at random places and whose bits are flipped: never a wrong tensor, never a raw exception.

A reader gives exactly what was written, or says in one line that it can't. Where a format has no checksum of its own
(safetensors of others, tar files, JSON), only the second half can be promised.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tarfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from solo.analysis.comparison import compare_runs as compare
from solo.analysis.comparison import packed
from solo.args.origins import read_yaml
from solo.callbacks.recorder import read_rows as read_metrics
from solo.callbacks.run_directory import AutoResumer, RunDirectory
from solo.checkpoint import load_checkpoint, saved_settings
from solo.data.cache import cached, index_of
from solo.data.catalogue.registry import get_spec
from solo.data.labels.trees import read_tree
from solo.data.sources.images import load
from solo.data.storage.containers import extract_tar, read_index
from solo.data.storage.listing import list_images
from solo.data.views.batched import BatchAugment
from solo.errors import UserError
from solo.eval.features import Features, FeatureTable, read_features, write_features
from solo.experiment.runs import add_row, read_rows
from solo.export.folder import Bundle, Network, facts_of, model_card, read_exported
from solo.run.pretrain import kept_rows
from solo.run.resume import Fingerprint, SameData
from solo.taxonomy import Taxonomy

ROUNDS = 60
ENTRY = {"crop_size": 8, "num_crops": 2, "rrc": {"enabled": True, "crop_min_scale": 0.5, "crop_max_scale": 1.0}}
WEIGHTS = {f"backbone.{i}.weight": torch.randn(5, 7, generator=torch.Generator().manual_seed(i)) for i in range(4)}


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Cut off, lengthened, zeroed, or some bits flipped."""
    place = rng.randrange(len(content))
    kind = rng.randrange(8)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + bytes(min(512, len(content) - place)) + content[place + 512 :]
    if kind == 2:
        return content[:place] + rng.randbytes(rng.randrange(1, 40)) + content[place:]
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 3, 20))):
        changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def checkpoint(file: Path) -> Any:
    settings = {"format": 1, "cfg": {"name": "x", "seed": 5}, "data": {"size": 8}}
    torch.save({"state_dict": WEIGHTS, "solo": settings, "epoch": 3, "best": np.float64(0.5)}, file)
    return lambda: (lambda found: [found["state_dict"], saved_settings(found, file)])(load_checkpoint(file))


def safetensors(file: Path) -> Any:
    save_file(WEIGHTS, file)
    return lambda: load_checkpoint(file)["state_dict"]


def features(file: Path) -> Any:
    table = FeatureTable(torch.randn(9, 4), torch.arange(9).reshape(9, 1) % 3, tuple("abcdefghi"))
    write_features(file, Features("x", "backbone", table, None, ("class",), Taxonomy.flat(["u", "v", "w"])))

    def read() -> Any:
        found = read_features(file)
        assert found.tree is not None
        return [found.val.features, found.val.labels, found.val.paths, found.levels, found.tree.to_dict(), found.name]

    return read


def picture(size: tuple[int, int] = (9, 9)) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise(size, 60).save(stream, "PNG")
    return stream.getvalue()


def tar(file: Path) -> None:
    with tarfile.open(file, "w") as archive:
        for i in range(4):
            for name, content in ((f"{i}.json", json.dumps({"kind": i}).encode()), (f"{i}.png", picture())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def shard(file: Path) -> Any:
    tar(file)
    return lambda: len(list_images("webdataset", file).images)


def archive(file: Path) -> Any:
    tar(file)
    return lambda: extract_tar(file, file.parent / "out")


def taxonomy(file: Path) -> Any:
    file.write_text(json.dumps(Taxonomy.from_groups(["cat", "car"], {"animal": ["cat"], "thing": ["car"]}).to_dict()))
    return lambda: read_tree(file, ["cat", "car"])


def rows(file: Path) -> Any:
    for seed in range(4):
        add_row(
            file.parent, {"id": str(seed), "seconds": 0.5 + seed, "numbers": {"all": {"class": {"knn_acc1": 91.25}}}}
        )
    written = read_rows(file.parent)

    def read() -> Any:
        found = read_rows(file.parent, ("seconds", "numbers"))
        assert all(row[key] == written[name][key] for name, row in found.items() for key in ("seconds", "numbers"))
        return len(found)

    return read


def neighbours(file: Path) -> Any:
    np.savez(file, rows=np.arange(40, dtype=np.int32).reshape(20, 2) % 20)

    def read() -> Any:
        found = kept_rows(file, 20, 2)
        if found is None:
            raise UserError("made again")
        return found

    return read


def columns(file: Path) -> Any:
    file.write_text("child,parent\n" + "".join(f"class {i},group {i % 3}\n" for i in range(20)))
    return lambda: read_tree(file, [f"class {i}" for i in range(20)]).to_dict()


def metrics(file: Path) -> Any:
    file.write_text("epoch,loss\n" + "".join(f"{i},{1 / (i + 1)}\n" for i in range(20)))
    return lambda: read_metrics(file)


def experiment(file: Path) -> Any:
    file.write_text(
        "recipe: digits simclr\nwords: [max_epochs=2]\narms: {one: [seed=1], two: {placebo: true}}\nseeds: 3\n"
    )
    return lambda: read_yaml(file)


def index(file: Path) -> Any:
    import h5py

    with h5py.File(file.with_name("x.h5"), "w") as images:
        for i in range(6):
            images[f"class {i % 2}/{i}.png"] = np.frombuffer(picture(), np.uint8)
    read_index(file.with_name("x.h5"))
    return lambda: read_index(file.with_name("x.h5"))


def card(file: Path) -> Any:
    """`evaluate.json` has numbers of the same kind, with intervals."""
    told = {"name": "x", "method": "simclr", "epochs": 3, "seed": 5, "val_acc1": 70.5, "versions": {"torch": "2.6"}}
    numbers = {"level": "class", "knn_acc1": 81.25, "knn_acc1_ci": [79.5, 83.5]}
    file.write_text(json.dumps({**told, "protocol": {"val_acc1": "online"}, "results": [{"levels": [numbers] * 3}]}))
    network = Network("resnet18", {}, None, True, 3, 32, None, (0.5,), (0.5,))
    bundle = Bundle(
        network=network, features_dim=8, taxonomy=None, facts={}, backbone=torch.nn.Identity(), classifier=None
    )

    def read() -> Any:
        (file.parent / "evaluate.json").write_bytes(file.read_bytes())
        (file.parent / "summary.json").write_bytes(file.read_bytes())
        return model_card(replace(bundle, facts=facts_of(file.parent, {})))

    return read


def arguments(file: Path) -> Any:
    cfg = {"name": "x", "method": "simclr", "backbone": {"name": "resnet18"}, "optimizer": {"lr": 0.5}, "seed": 3}
    file.write_text(json.dumps({**cfg, "wandb_run_id": "12ab34"}))
    (file.parent / "last.ckpt").touch()

    def read() -> Any:
        resumer = AutoResumer(file.parent)
        return [*resumer.find_checkpoint(cfg), resumer.passed_over]

    return read


def training_data(file: Path) -> Any:
    lines = tuple(f"cat\t{i}.png\t{100 + i}" for i in range(60))
    file.write_bytes(gzip.compress("\n".join(lines).encode(), 1, mtime=0))

    def read() -> Any:
        same = SameData(RunDirectory(file.parent), file.parent, [])
        same.found = Fingerprint("another", {"cat": 60}, (*lines, "cat\tnew.png\t100"))
        with pytest.raises(UserError, match="not those that the run was started with") as refused:
            same.on_load_checkpoint(None, None, {"training_data": {"digest": "one", "classes": {"cat": 60}}})
        return str(refused.value)

    return read


def hits(file: Path) -> Any:
    level = {"images": 40, "accuracy": 50.0, "ci": None, "hits": packed(np.arange(40) % 2.0, 1)}
    row = {"data": "d", "protocol": "knn", "draws": 1, "labels": 7, "levels": {"class": level}}
    for run in "ab":
        add_row(file.parent, {"id": run, "run": run, **row})
    return lambda: [vars(one) for one in compare([*read_rows(file.parent, ("protocol", "levels")).values()])]


def description(file: Path) -> Any:
    network = Network("resnet18", {}, None, True, 3, 32, None, (0.5,) * 3, (0.5,) * 3)
    facts = {"name": "x", "numbers": {"val_acc1": 70.5}, "versions": {"torch": "2.6"}}
    tree = Taxonomy.from_groups(["cat", "car"], {"animal": ["cat"], "thing": ["car"]}).to_dict()
    told = {"format": 1, "network": vars(network), "features_dim": 8, "taxonomy": tree, "facts": facts}
    file.write_text(json.dumps(told))
    save_file(WEIGHTS, file.with_name("model.safetensors"))
    return lambda: model_card(Bundle(**read_exported(file.parent)[0], backbone=None))


READERS: dict[str, tuple[str, Callable[[Path], Any], bool]] = {
    "checkpoint": ("x.ckpt", checkpoint, True),
    "features npz": ("x.npz", features, True),
    "features pt": ("x.pt", features, True),
    "features safetensors": ("x.safetensors", features, True),
    "safetensors of others": ("w.safetensors", safetensors, False),
    "shard": ("x.tar", shard, False),
    "archive": ("x.tar", archive, False),
    "taxonomy": ("tree.json", taxonomy, False),
    "tree of columns": ("tree.csv", columns, False),
    "rows of an experiment": ("rows.jsonl", rows, False),
    "file of an experiment": ("x.yaml", experiment, False),
    "rows of a run": ("metrics.csv", metrics, False),
    "neighbours": ("x.npz", neighbours, True),
    "hits of a benchmark": ("rows.jsonl", hits, False),
    "summary.json, evaluate.json": ("told.json", card, False),
    "args.json": ("args.json", arguments, False),
    "training_data.txt.gz": ("training_data.txt.gz", training_data, False),
    "index of an HDF5 file": ("x.h5.index.json", index, True),
    "exported description": ("solo.json", description, False),
}


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def fuzz(kind: str, folder: Path, rounds: int, seed: int) -> None:
    name, make, verified = READERS[kind]
    file, rng = folder / name, random.Random(f"{kind} {seed}")
    read = make(file)
    content, right, seen = file.read_bytes(), read(), 0
    for number in range(rounds):
        file.write_bytes(damaged(content, rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the libraries, on the way to the error
                found = read()
        except UserError as error:
            seen += 1
            assert "\n" not in str(error), f"{kind}, round {number}: {error}"
        else:
            same = equal(found, right)
            assert not verified or same, f"{kind}, round {number}: something else was read"
            seen += not same
    assert verified or seen > rounds // 10  # damage is seen: the test can fail


@pytest.mark.fault(
    5, "checkpoints and feature files cut off or changed at random places", "what was written, or one line"
)
@pytest.mark.fault(
    5,
    "shards, archives, label trees, safetensors, rows, hits and files of experiments, `metrics.csv`, `summary.json`, "
    "`args.json`, `solo.json`, lists of files changed at random places",
    "never a raw exception",
)
@pytest.mark.parametrize("kind", READERS)
def test_readers(kind: str, tmp_path: Path) -> None:
    fuzz(kind, tmp_path, ROUNDS, seed=0)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("kind", READERS)
def test_readers_for_long(kind: str, seed: int, tmp_path: Path) -> None:
    fuzz(kind, tmp_path, 300, seed)


@pytest.mark.fault(5, "one bit in the list of a `.npz`, that hides its last arrays", "refused: they are counted")
def test_a_hidden_array_is_missed(tmp_path: Path) -> None:
    features(tmp_path / "x.npz")
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[content.rfind(b"PK\1\2", 0, content.rfind(b"PK\1\2")) + 32] ^= 128  # how long a comment is
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match="its list of records is damaged"):
        read_features(tmp_path / "x.npz")


@pytest.mark.fault(5, "the cache of decoded images changed at random places", "the right pixels, decoded again")
def test_the_cache(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / "images" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / "ab"[i % 2] / f"{i}.png").write_bytes(picture((8 + i, 9)))
    data, augment = load(get_spec("custom"), "train", tmp_path / "images"), BatchAugment([ENTRY], (0.5,), (0.25,), 3)

    def images() -> Any:
        return cached(data, augment, folder=str(tmp_path / "cache"))

    right, rng, path = images().fetch(range(6)), random.Random(0), images().path
    for _ in range(40):
        file = rng.choice((path, index_of(path)))
        changed = damaged(file.read_bytes(), rng)
        file.write_bytes(changed)
        assert all(torch.equal(a, b) for a, b in zip(images().fetch(range(6)), right, strict=True))
        os.truncate(path, min(path.stat().st_size, images().nbytes))
