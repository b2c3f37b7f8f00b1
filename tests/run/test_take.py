"""`solo embed`, `search`, `predict`, `export` as users type them: files, order, what is resumed, what is refused."""

from __future__ import annotations

import csv
import functools
import importlib.util
import os
import random
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import solo
from solo.args.eval_schema import SearchCfg
from solo.cli import main
from solo.errors import UserError
from solo.run.take import search

DIGITS = load_digits()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    words = ["max_epochs=1", "data.fraction=0.15", "optimizer.batch_size=64", "backbone.kwargs.width=8", "progress=off"]
    assert (
        main(["pretrain", "scripts/pretrain/digits", "simclr", *words, "accelerator=cpu", f"checkpoint.dir={folder}"])
        == 0
    )
    return next((folder / "simclr").iterdir())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meine bilder = größe")
    for i in range(23):
        place = folder / f"{i % 3}"
        place.mkdir(exist_ok=True)
        Image.fromarray((DIGITS.images[i] * 15.9).astype(np.uint8)).save(place / f"{i:02}.png")
    return folder


@pytest.mark.fault(5, "a part that `solo embed` left behind is changed at random places", "computed again")
def test_damaged_parts_are_computed_again(run, pictures, tmp_path, monkeypatch):
    from solo.run import take

    out, rng, model = tmp_path / "f", random.Random(0), solo.load(run)
    monkeypatch.setattr(take, "load_pretrained", lambda *_: model)
    words = [str(run), str(pictures), f"out={out}", "shard=12"]
    assert main(["embed", *words]) == 0
    parts = {part: part.read_bytes() for part in out.glob("*.npz")}
    right = {part: np.load(part)["features"] for part in parts}
    for round_ in range(24):
        part = rng.choice([*parts])
        changed = bytearray(parts[part])[: rng.randrange(len(parts[part])) if round_ % 4 == 0 else None]
        if round_ % 4:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        part.write_bytes(changed)
        assert main(["embed", *words]) == 0
        assert all(np.allclose(np.load(one)["features"], right[one], atol=1e-6) for one in parts)
        part.write_bytes(parts[part])


def read_csv(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def expected(run: Path, pictures: Path) -> tuple[torch.Tensor, list[str]]:
    files = sorted(pictures.rglob("*.png"))
    return solo.load(run).embed(files), [str(file) for file in files]


@pytest.mark.parametrize("name", ["f.npz", "f.npy", "f.parquet", "folder"])
def test_embed_writes_all_features_in_order(run, pictures, tmp_path, name):
    out = tmp_path / "new" / name
    assert main(["embed", str(run), str(pictures), f"out={out}", "shard=9", "batch_size=4"]) == 0
    if name == "f.npz":
        held = np.load(out)
        features, paths = held["features"], held["paths"].tolist()
    elif name == "f.npy":
        features, paths = np.load(out), out.with_suffix(".txt").read_text().splitlines()
    elif name == "f.parquet":
        from pyarrow import parquet

        table = parquet.read_table(out).to_pydict()
        features, paths = np.array(table["features"]), table["path"]
    else:
        parts = [np.load(file) for file in sorted(out.glob("*.npz"))]
        assert [len(part["paths"]) for part in parts] == [9, 9, 5]
        features, paths = (
            np.concatenate([p["features"] for p in parts]),
            [n for p in parts for n in p["paths"].tolist()],
        )
    wanted, files = expected(run, pictures)
    assert paths == files
    np.testing.assert_allclose(features, wanted.numpy(), atol=1e-6)
    assert not list(out.parent.glob(".*"))


def test_a_stopped_embed_goes_on(run, pictures, tmp_path, monkeypatch):
    from solo.run.take import FileFeatures

    features, computed = FileFeatures.features, []

    def counting(self, files, what):
        computed.append(len(files))
        if len(computed) == 2:
            raise KeyboardInterrupt
        return features(self, files, what)

    monkeypatch.setattr(FileFeatures, "features", counting)
    words = ["embed", str(run), str(pictures), f"out={tmp_path / 'f.npz'}", "shard=9"]
    assert main(words) == 130 and not (tmp_path / "f.npz").exists()
    assert main(words) == 0 and computed == [9, 9, 9, 5]  # the first part was kept
    np.testing.assert_allclose(np.load(tmp_path / "f.npz")["features"], expected(run, pictures)[0].numpy(), atol=1e-6)


@pytest.mark.fault(
    5, "two `solo embed` into one file; parts of an earlier one on more images", "the second is refused; they go"
)
def test_one_embed_at_a_time_and_no_old_parts(run, pictures, tmp_path, capsys):
    out = tmp_path / "f"
    words = ["embed", str(run), str(pictures), f"out={out}"]
    assert main([*words, "shard=9"]) == 0 and len(list(out.glob("*.npz"))) == 3
    np.savez(out / "7.npz", mine=np.zeros(1))  # not ours, and stays
    assert main(words) == 0 and sorted(path.name for path in out.iterdir()) == ["00000.npz", "7.npz"]
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    other = [sys.executable, "-c", hold, str(out / ".lock")]
    with subprocess.Popen(other, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        holder.stdout.readline()
        assert main(words) == 1 and "is in use by another process" in capsys.readouterr().err
        holder.communicate("\n", timeout=20)
    assert main(words) == 0 and not (out / ".lock").exists()


def test_files_that_cannot_be_read(run, tmp_path, capsys):
    Image.fromarray((DIGITS.images[0] * 15).astype(np.uint8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    words = ["embed", str(run), str(tmp_path), f"out={tmp_path / 'f.npz'}"]
    assert main(words) == 1 and "bad.png" in capsys.readouterr().err
    assert main([*words, "on_error=skip"]) == 0
    assert "1 files or folders were skipped" in "".join(capsys.readouterr())
    assert [Path(name).name for name in np.load(tmp_path / "f.npz")["paths"]] == ["good.png"]


@pytest.mark.fault(2, "folders and images that only another user may read", "named, or skipped and listed")
def test_files_of_another_user(run, pictures, tmp_path, capsys, no_root):
    place = tmp_path / "pictures"
    shutil.copytree(pictures, place)
    (place / "0").chmod(0)
    next((place / "1").iterdir()).chmod(0)
    for words in (["embed", "f.npz"], ["predict", "f.csv"]):
        line = [words[0], str(run), str(place), f"out={tmp_path / words[1]}"]
        assert main(line) == 1
        assert "0 can't be listed (Permission denied); repair or remove it, or set on_error=skip" in (
            capsys.readouterr().err
        )
        assert main([*line, "on_error=skip"]) == 0
        told = "".join(capsys.readouterr())
        assert "2 files or folders were skipped" in told and "can't be listed" in told
    place.chmod(0)
    with pytest.raises(UserError, match="can't be listed"):
        solo.load(run).embed(place)
    place.chmod(0o755)
    (place / "0").chmod(0o755)


@pytest.mark.fault(2, "12 bits in 16 in the pictures of `solo search`", "as bright as the network sees them")
def test_pictures_of_deep_images(run, tmp_path):
    place, model = tmp_path / "deep", solo.load(run)
    place.mkdir()
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(place / "white.png")
    model = replace(model, network=replace(model.network, reading={"range": [0, 4095]}))
    search(SearchCfg(run=str(run), query=str(place), among=str(place), out=str(tmp_path / "s.png")), model)
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.convert("L").getpixel((60, 60)) > 250


@pytest.mark.fault(5, "images and classes named like formulas (`=1+1`) in the CSV of `predict` and `search`", "texts")
def test_names_that_are_formulas(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray((DIGITS.images[0] * 15).astype(np.uint8)).save("=1.png")
    assert main(["predict", str(run), ".", "out=p.csv"]) == 0
    assert main(["search", str(run), "query==1.png", "among=.", "out=s.csv"]) == 0
    assert (
        "\n./=1.png," in (tmp_path / "p.csv").read_text()
        and "\n./=1.png,1,./=1.png," in (tmp_path / "s.csv").read_text()
    )


@pytest.mark.fault(2, "names that are no UTF-8 in `solo embed`, `predict`", "written as bytes, or spelt out in Parquet")
def test_names_that_are_no_text(run, tmp_path):
    (tmp_path / "pics").mkdir()
    odd = tmp_path / "pics" / os.fsdecode(b"\xff\xfe.png")
    Image.fromarray((DIGITS.images[0] * 15).astype(np.uint8)).save(tmp_path / "good.png")
    shutil.copy(tmp_path / "good.png", odd)
    for command, name in (
        *[("embed", f"f{ending}") for ending in (".npz", ".npy", ".parquet")],
        *[("predict", f"p{ending}") for ending in (".csv", ".parquet")],
    ):
        assert main([command, str(run), str(odd.parent), f"out={tmp_path / name}"]) == 0
    assert np.load(tmp_path / "f.npz")["paths"].tolist() == [str(odd)]
    assert (
        os.fsencode(odd) in (tmp_path / "f.txt").read_bytes() and os.fsencode(odd) in (tmp_path / "p.csv").read_bytes()
    )


def test_search_finds_the_image_itself_and_its_neighbours(run, pictures, tmp_path):
    query = sorted(pictures.rglob("*.png"))[7]
    words = ["search", str(run), f"query={query}", "k=4"]
    for name in ("found.csv", "found.html", "found.png"):
        assert main([*words, f"among={pictures}", f"out={tmp_path / name}"]) == 0
    rows = read_csv(tmp_path / "found.csv")
    features, files = expected(run, pictures)
    cosines = torch.nn.functional.normalize(features, dim=1) @ torch.nn.functional.normalize(
        features[files.index(str(query))], dim=0
    )
    best = cosines.argsort(descending=True)[:4].tolist()
    assert [row["image"] for row in rows] == [files[i] for i in best] and rows[0]["image"] == str(query)
    assert [float(row["cosine"]) for row in rows] == pytest.approx(cosines[best].tolist(), abs=1e-5)
    page = (tmp_path / "found.html").read_text()
    assert page.count("<img") == 5 and "größe" in page
    with Image.open(tmp_path / "found.png") as sheet:
        assert sheet.width > sheet.height
    assert main(["embed", str(run), str(pictures), f"out={tmp_path / 'f.npz'}"]) == 0
    assert main([*words, f"features={tmp_path / 'f.npz'}", f"out={tmp_path / 'again.csv'}"]) == 0
    held = dict(np.load(tmp_path / "f.npz"))
    np.savez(tmp_path / "other.npz", **{**held, "facts": np.array("0" * 16)})
    assert main([*words, f"features={tmp_path / 'other.npz'}"]) == 1  # as wide, and nothing to do with this model
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "found.csv").read_text()


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss is not installed")
def test_search_writes_an_index(run, pictures, tmp_path):
    import faiss

    query = sorted(pictures.rglob("*.png"))[0]
    words = ["search", str(run), f"query={query}", f"among={pictures}", f"index={tmp_path / 'i.faiss'}"]
    assert main(words) == 0
    index = faiss.read_index(str(tmp_path / "i.faiss"))
    features, files = expected(run, pictures)
    cosine, place = index.search(torch.nn.functional.normalize(features[:1], dim=1).numpy(), 1)
    assert cosine[0, 0] == pytest.approx(1, abs=1e-5)
    assert (tmp_path / "i.faiss.txt").read_text().splitlines()[place[0, 0]] == files[0]


@pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
def test_predict_writes_a_table(run, pictures, tmp_path, name):
    out = tmp_path / name
    assert main(["predict", str(run), str(pictures), f"out={out}", "k=3"]) == 0
    if name.endswith("csv"):
        rows = read_csv(out)
    else:
        from pyarrow import parquet

        rows = parquet.read_table(out).to_pylist()
    files = sorted(pictures.rglob("*.png"))
    best = solo.load(run).predict(files, k=3).best
    assert [row["path"] for row in rows] == [str(file) for file in files]
    assert [[row[f"best{place}"] for place in (1, 2, 3)] for row in rows] == [
        [name for name, _ in each] for each in best
    ]
    assert float(rows[0]["probability1"]) == pytest.approx(best[0][0][1], abs=1e-5)


def test_export_by_command(run, tmp_path, capsys):
    assert main(["export", str(run), "to=torch_export", f"out={tmp_path}"]) == 0
    told = "".join(capsys.readouterr())
    assert "features are equal" in told and "torch.export.load" in told and (tmp_path / "model.pt2").is_file()


@pytest.mark.parametrize(
    ("words", "code", "match"),
    [
        (["embed", "RUN"], 2, "images"),
        (["embed", "RUN", "PICTURES", "out=x.txt"], 1, ".npz, .npy, .parquet"),
        (["embed", "RUN", "PICTURES", "out=x.npz", "batchsize=3"], 2, "batch_size"),
        (["embed", "RUN", "nowhere", "out=x.npz"], 1, "doesn't exist"),
        (["embed", "RUN", "PICTURES", "out=x.npz", "device=cuda:7"], 1, "device=cuda:7"),
        (["embed", "nowhere", "PICTURES", "out=x.npz"], 1, "nowhere"),
        (["search", "RUN", "query=PICTURES"], 1, "among=FOLDER or features=FILE"),
        (["search", "RUN", "query=PICTURES", "features=PICTURES"], 1, "solo embed"),
        (["predict", "RUN", "PICTURES", "out=x.npz"], 1, ".csv or .parquet"),
        (["predict", "RUN", "PICTURES", "out=x.csv", "level=order"], 1, "order"),
        *(
            pytest.param(
                words,
                1,
                match,
                marks=pytest.mark.fault(
                    1, "`out=` where nothing can be written", "one line, before anything is computed"
                ),
            )
            for words, match in [
                (["embed", "RUN", "PICTURES", "out=/dev/null/f.npz"], "/dev/null/f.npz can't be written"),
                (["embed", "RUN", "PICTURES", "out=/dev/null/folder"], "/dev/null/folder"),
                (["predict", "RUN", "PICTURES", "out=/dev/null/f.csv"], "/dev/null/f.csv can't be written"),
                (["predict", "RUN", "PICTURES", "out=d.csv/../../tmp.csv/"], ".csv or .parquet"),
                (["search", "RUN", "query=PICTURES", "among=PICTURES", "out=/dev/null/f.csv"], "can't be written"),
                (["search", "RUN", "query=PICTURES", "among=PICTURES", "index=/dev/null/i"], "can't be written"),
                (["export", "RUN", "to=safetensors", "out=/dev/null/folder"], "Not a directory; choose another folder"),
            ]
        ),
        (["search", "RUN", "query=PICTURES", "features=FIFO"], 1, "no such file"),
        pytest.param(
            ["embed", "RUN", "PICTURES", "out=x.npz", "out=y.npz"],
            2,
            "out is given twice, 'x.npz' and 'y.npz'",
            marks=pytest.mark.fault(
                1, "a key given twice to `solo embed`, `search`, ...", "refused: which of them counts?"
            ),
        ),
        (["embed", "run=RUN", "PICTURES", "out=x.txt"], 1, ".npz, .npy, .parquet"),  # the word is the images
        pytest.param(
            ["search", "RUN", "query=PICTURES", "features=BOMB"],
            1,
            "more than can be in it",
            marks=pytest.mark.fault(5, "a zip bomb as `features=` of `solo search`", "refused before it is unpacked"),
        ),
        (["embed", "RUN", "FIFO", "out=x.npz"], 1, "pipe"),
        (["inspect", "a\0b"], 1, "does not exist"),
        (["inspect", "TARS"], 1, "one by one, as"),
        (["evaluate", "RUN", "bootstrap=100"], 2, "write intervals=true"),
        (["embed", "RUN", "PICTURES", "out=x.npz", "device=meta"], 1, "device=meta"),
        (["embed", "RUN", "PICTURES", "out=x.npz", "batch_size=1e30"], 2, "batch_size"),
        (["export", "RUN", "to=tensorflow", "out=x"], 2, "tensorflow"),
        (["export", "RUN", "to=torchvision", "out=x"], 1, "resnet10"),
    ],
)
def test_wrong_words_are_one_line(run, pictures, capsys, tmp_path, monkeypatch, words, code, match):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "a.tar").touch()
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        if "BOMB" in str(words):
            archive.writestr("features.npy", bytes(2**27))
    places = {
        "RUN": run,
        "BOMB": tmp_path / "bomb.npz",
        "PICTURES": pictures,
        "FIFO": tmp_path / "pipe",
        "TARS": tmp_path / "tars",
    }
    filled = [
        functools.reduce(lambda word, name: word.replace(name, str(places[name])), places, word) for word in words
    ]
    assert main(filled) == code
    told = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in told if line.startswith("error:")]) == 1 and match in "\n".join(told)
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.parametrize("command", ["embed", "search", "predict", "export"])
def test_help(command, capsys):
    assert main([command, "--help"]) == 0
    assert "batch_size" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (np.zeros((1, 1, 1, 1, 1), np.uint8), "shape"),
        (np.zeros((0, 8), np.uint8), "nothing"),
        (np.ones((8, 8), complex), "complex"),
    ],
)
def test_arrays_that_are_no_images(run, image, match):
    with pytest.raises(UserError, match=match):
        solo.load(run).embed([image])
    assert len(solo.load(run).embed([np.zeros((8, 8), np.uint8)], batch_size=10**30)) == 1


def pictures_of_kinds():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    turned = Image.Exif()
    turned[0x112] = 6
    return {
        "transparent": (Image.fromarray(np.dstack([np.full((8, 8), 200, np.uint8), 4 * grey]), "LA"), {}),
        "16 bits": (Image.fromarray(grey.astype(np.uint16) * 1000), {}),
        "turned": (Image.fromarray(grey * 3), {"exif": turned}),
        "palette": (Image.fromarray(grey * 3).convert("P"), {}),
    }


@pytest.mark.fault(2, "pictures of Pillow and arrays handed to `embed`: transparent, 16 bits, turned", "as from a file")
@pytest.mark.parametrize("kind", ["transparent", "16 bits", "turned", "palette"])
def test_pictures_are_read_like_files(run, tmp_path, kind):
    picture, options = pictures_of_kinds()[kind]
    picture.save(tmp_path / "a.png", **options)
    model = solo.load(run)
    want = model.embed(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert torch.equal(model.embed(picture), want) and torch.isfinite(want).all()
        if kind == "16 bits":
            assert torch.equal(model.embed(np.asarray(picture)), want)


@pytest.mark.fault(5, "tensors and pictures without numbers or pixels, batches of 1.5 images", "one line")
@pytest.mark.parametrize(
    ("image", "match"),
    [
        (torch.full((1, 16, 16), float("nan")), "infinite or no numbers"),
        (Image.new("L", (0, 8)), "0 x 8 pixels"),
        (Image.fromarray(np.full((8, 8), np.inf, np.float32)), "infinite or no numbers"),
    ],
)
def test_no_feature_of_nothing(run, image, match):
    model = solo.load(run)
    with pytest.raises(UserError, match=match):
        model.embed([image])
    assert torch.isfinite(model.embed(torch.zeros(1, 16, 16, dtype=torch.float16))).all()
    with pytest.raises(UserError, match=r"batch_size=1.5 must be a whole number"):
        model.embed([image], 1.5)


@pytest.mark.fault(5, "`solo.load` with a wrong size, mean or std", "refused; they were left out silently")
@pytest.mark.parametrize("source", ["run", "timm/test_resnet"])
@pytest.mark.parametrize("data", [{"image_size": 0}, {"image_size": "x"}, {"std": [0.0]}, {"mean": (float("nan"),)}])
def test_wrong_settings_of_a_model(run, data, source):
    with pytest.raises(UserError, match=next(iter(data))):
        solo.load(run if source == "run" else source, **data)


def test_settings_of_a_model_in_tuples(run):
    assert solo.load(run, mean=(0.25,)).network.mean == (0.25,)


@pytest.mark.fault(
    6, "`solo.search` for 0 or 1.5 images, `HEXLoss` at temperature 0 or of a text", "refused in one line"
)
def test_settings_in_a_program(run, pictures):
    for k in (0, 1.5, "x"):
        with pytest.raises(UserError, match=f"k={k!r}"):
            solo.search(run, pictures, pictures, k=k)
    wrong = ({"temperature": 0}, {"temperature": float("nan")}, {"tau_plus": 1}, {"beta": -1}, {"policy": "HEX_fixed"})
    for settings in wrong:
        with pytest.raises(UserError, match="give a temperature above 0"):
            solo.HEXLoss(**settings)
