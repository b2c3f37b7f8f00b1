import csv
import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from solo import cli
from solo.args.eval_schema import KnnCfg
from solo.args.parse import parse
from solo.errors import UserError
from solo.methods import METHODS, BaseMethod
from solo.run.features import load_features
from solo.run.source import pretrained_method


def direct(bank, queries, k, distance, temperature):
    """acc@1 and acc@5 by loops in float64."""
    x, y = (part.features.numpy().astype(np.float64) for part in (bank, queries))
    if distance == "cosine":
        x, y = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (x, y))
    labels, hits = bank.labels[:, 0].numpy(), np.zeros(2)
    for row, truth in zip(y, queries.labels[:, 0].numpy(), strict=True):
        near = x @ row if distance == "cosine" else -np.sqrt(((x - row) ** 2).sum(axis=1))
        votes = np.zeros(10)
        for index in np.argsort(-near)[:k]:
            votes[labels[index]] += (
                np.exp(near[index] / temperature) if distance == "cosine" else 1 / (1e-5 - near[index])
            )
        best = [c for c in np.argsort(-votes)[: min(5, k)] if votes[c] > 0]
        hits += truth == best[0], truth in best
    return 100 * hits / len(y)


def words(command, checkpoint, tmp_path, *more):
    common = [f"pretrained_feature_extractor={checkpoint}", f"checkpoint.dir={tmp_path}", "accelerator=cpu"]
    return [command, f"scripts/{command}/digits", f"{command}.yaml", *common, *more]


def test_all_combinations_equal_a_direct_computation(pretrained, tmp_path, capsys):
    more = ("k=[1,7]", "temperature=[0.05,0.2]", "feature_type=[backbone,projector]")
    assert cli.main(words("knn", pretrained, tmp_path, *more)) == 0
    (folder,) = (tmp_path / "knn").iterdir()
    found = json.loads((folder / "knn.json").read_text())
    cfg = parse(yaml.safe_load((folder / "config.yaml").read_text()), KnnCfg).config
    sets, _ = load_features(cfg, ["backbone", "projector"], torch.device("cpu"))
    assert sets["backbone"].val.features.shape[1] != sets["projector"].val.features.shape[1] == 8
    assert len(found["results"]) == 2 * 2 * (2 + 1)
    for row in found["results"]:
        bank, queries = sets[row["feature_type"]].train, sets[row["feature_type"]].val
        expected = direct(bank, queries, row["k"], row["distance_function"], row["temperature"])
        # Two neighbours at the same distance may change places between the number formats.
        assert [row["digit_acc1"], row["digit_acc5"]] == pytest.approx(expected.tolist(), abs=0.3)
    assert "bank: 1,437 plain training images" in found["protocol"] and "all 360 validation" in found["protocol"]
    rows = list(csv.DictReader((folder / "knn.csv").read_text().splitlines()))
    assert [float(row["digit_acc1"]) for row in rows] == [row["digit_acc1"] for row in found["results"]]
    screen = capsys.readouterr().out
    assert "Running k-NN with params: distance_fx=cosine, k=7, T=0.2\n" in screen
    assert "Running k-NN with params: distance_fx=euclidean, k=1\nResult: acc@1=" in screen


def test_the_form_with_flags_gives_the_same_numbers(pretrained, tmp_path, monkeypatch, capsys):
    assert cli.main(words("knn", pretrained, tmp_path, "k=5", "distance_function=cosine", "temperature=0.1")) == 0
    recipe = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Result")]
    monkeypatch.chdir(tmp_path)
    flags = "--dataset digits --k 5 --temperature 0.1 --distance_function cosine --feature_type backbone"
    for source in (f"--pretrained_checkpoint_dir {pretrained}", f"--ckpt {pretrained / 'last.ckpt'}"):
        assert cli.main(["knn", *flags.split(), "--num_workers", "0", *source.split()]) == 0
        assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("Result")] == recipe


def test_a_checkpoint_of_solo_learn_with_its_args_json(pretrained, tmp_path, capsys):
    """Only args.json and Lightning's keys, under another name."""
    old = tmp_path / "old"
    old.mkdir()
    checkpoint = torch.load(pretrained / "last.ckpt")
    args = json.loads((pretrained / "args.json").read_text())
    for word in ("hex", "image_size", "channels", "mean", "std"):
        args.pop(word, None)
        args["data"].pop(word, None)
    (old / "args.json").write_text(json.dumps(args))
    torch.save({"state_dict": checkpoint["state_dict"], "epoch": 1}, old / "simclr-abc-ep=1.ckpt")
    results = []
    for source in (old, pretrained):
        more = ("k=5", "distance_function=cosine", "feature_type=projector")
        assert cli.main(words("knn", source, tmp_path, *more)) == 0
        results.append([line for line in capsys.readouterr().out.splitlines() if line.startswith("Result")])
    assert results[0] == results[1] and len(results[0]) == 1


def test_own_images(pretrained, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, level in (("dark", 40), ("light", 200)):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(6):
                pixels = np.full((16, 16, 3), level, np.uint8) + rng.integers(0, 30, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{index}.png")
    flags = f"--dataset custom --train_data_path {tmp_path}/train --val_data_path {tmp_path}/val --ckpt {pretrained}"
    more = (f"checkpoint.dir={tmp_path}", "accelerator=cpu")
    paths = (f"data.train_path={tmp_path}/train", f"data.val_path={tmp_path}/val", "data.num_workers=0")
    source = f"pretrained_feature_extractor={pretrained}"
    assert cli.main(["knn", "scripts/knn/custom", "knn.yaml", source, *paths, *more]) == 0
    assert "k=200 is more than the 12 training images" in capsys.readouterr().out
    (folder,) = (tmp_path / "knn").iterdir()
    assert json.loads((folder / "knn.json").read_text())["results"][0]["class_acc1"] == 100
    assert cli.main(["knn", *flags.split(), "--no_labels"]) == 2
    assert "command line, --no_labels: data.no_labels is not a key" in capsys.readouterr().err


def test_a_projector_that_is_not_there(pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr(METHODS["simclr"], "heads", BaseMethod.heads)
    given = {"pretrained_feature_extractor": str(pretrained), "feature_type": ["projector"]}
    cfg = parse({**given, "data": {"dataset": "digits"}}, KnnCfg).config
    with pytest.raises(UserError, match="'simclr' of .* has no projector; use feature_type=backbone"):
        pretrained_method(cfg)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("k=0", "k=0 is out of range; give a number >= 1"),
        ("temperature=[0.1,0]", "is out of range; give a number > 0"),
        ("feature_type=head", "feature_type='head' is unknown"),
        ("max_epochs=3", "max_epochs is not a key"),
    ],
)
def test_wrong_settings(pretrained, tmp_path, capsys, word, text):
    assert cli.main(words("knn", pretrained, tmp_path, word)) == 2
    assert text in capsys.readouterr().err
