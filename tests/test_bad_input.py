"""What users get wrong, one row a mistake: its exit code, and the words that its one line has to contain.

Almost all rows run in this process through `solo.cli.main`; those that must leave the interpreter alone, or that
concern it, are programs of their own at the end.
"""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import solo
from solo.cli import main

ROOT = Path(solo.__file__).parents[1]
DIGITS = ["pretrain", "scripts/pretrain/digits", "simclr.yaml"]
SMALL = "backbone.name=test_resnet ~backbone.kwargs method_kwargs.proj_hidden_dim=8 method_kwargs.proj_output_dim=8"
SHORT = "max_epochs=1 scheduler.warmup_epochs=0 limit_train_batches=1 limit_val_batches=1 num_sanity_val_steps=0"
QUIET = "accelerator=cpu progress=off tensorboard.enabled=false knn_eval.enabled=false"
CUSTOM = "data.dataset=custom data.image_size=16 optimizer.batch_size=4 augmentations=[{num_crops:2}]"

# words behind `solo pretrain scripts/pretrain/digits simclr.yaml` -> what the message says; exit code 2
SETTINGS = [
    ("strategy=fsdp_cpu_offload", "strategy='fsdp_cpu_offload' is unknown; give fsdp"),
    (
        "strategy=fsdp accumulate=exact accumulate_grad_batches=2",
        "accumulate=exact doesn't go with strategy=fsdp; give strategy=ddp",
    ),
    (
        "method=byol method_kwargs.pred_hidden_dim=8 performance.ring_loss=true",
        "performance.ring_loss=True is for simclr and supcon, not for method=byol",
    ),
    (
        "method=byol method_kwargs.pred_hidden_dim=8 performance.fused_loss=true",
        "performance.fused_loss=True is for all4one, mocov2plus, nnclr, simclr, supcon, and for HEX where",
    ),
    (
        "type=HEX_adaptive hex.action=pull performance.fused_loss=true",
        "performance.fused_loss=True weighs or drops what HEX_fixed",
    ),
    ("type=HEX_adaptive hex.action=pull performance.ring_loss=true", "performance.ring_loss=True pulls no relatives"),
    ("type=fnc performance.ring_loss=true", "performance.ring_loss=True pulls no relatives"),
    # names that don't exist
    ("method=simclrr", "method='simclrr' is unknown; did you mean 'simclr'? choose all4one, barlow_twins"),
    ("method=null", "method is missing; give text: self-supervised method"),
    ("type=HEX_adaptve", "type='HEX_adaptve' is unknown; did you mean 'HEX_adaptive'?"),
    ("data.dataset=digts", "data.dataset='digts' is unknown; did you mean 'digits'?"),
    ("data.format=zip", "data.format='zip' is unknown; choose image_folder"),
    ("optimizer.name=sdg", "optimizer.name='sdg' is unknown; did you mean 'sgd'? choose sgd, lars, adam, adamw"),
    ("scheduler.name=cosine", "scheduler.name='cosine' is unknown; did you mean 'warmup_cosine'?"),
    ("data.sampler=randm", "data.sampler='randm' is unknown; did you mean 'random'?"),
    ("accelerator=gpuu", "accelerator='gpuu' is unknown; did you mean 'gpu'?"),
    ("data.resolution_schedule=[]", "data.resolution_schedule=[] gives no share"),
    ("precision=bf17", "precision='bf17' is unknown; did you mean 'bf16'?"),
    ("augmentations=symetric", "asks for augmentations/symetric.yaml, which isn't there"),
    # keys that don't exist, or stand in the wrong place
    ("optimizer.lrr=1", "optimizer.lrr is not a key; did you mean 'optimizer.lr'?"),
    ("lr=1", "lr is not a key; did you mean 'optimizer.lr'?"),
    ("trainer.max_epochs=3", "trainer is not a key"),
    ("method_kwargs.queue_size=8", "method_kwargs.queue_size is not a key"),
    ("augmentations=[{num_crops:2,blur:{prob:0.5}}]", "augmentations[0].blur is not a key"),
    ("backbone=resnet18", "backbone='resnet18' is no section; give name, kwargs"),
    ("augmentations=3", "augmentations=3 is no list of sections; give a list"),
    ("_target_=os.system", "_target_ is not a key"),
    # wrong types
    ("max_epochs=ten", "max_epochs='ten' has the wrong type; give int"),
    ("max_epochs=1.5", "max_epochs=1.5 has the wrong type; give int"),
    ("sync_batchnorm=maybe", "sync_batchnorm='maybe' has the wrong type; give bool"),
    ("data.mean=[grey]", "data.mean='grey' has the wrong type; give float"),
    ("optimizer.lr=nan", "optimizer.lr=nan has the wrong type; give float"),
    ("optimizer.lr=inf", "optimizer.lr=inf has the wrong type; give float"),
    ("optimizer.kwargs.weight=nan", "optimizer.kwargs.weight=nan is not finite; give a number"),
    # out of range
    ("max_epochs=-5", "max_epochs=-5 is out of range; give a number >= 1"),
    ("max_steps=0", "max_steps=0 trains nothing"),
    ("optimizer.lr=-0.1", "optimizer.lr=-0.1 is out of range; give a number >= 0"),
    ("optimizer.batch_size=0", "optimizer.batch_size=0 is out of range; give a number >= 1"),
    ("optimizer.batch_size=1", "optimizer.batch_size=1 is too small: simclr compares or normalises"),
    ("method_kwargs.temperature=0", "method_kwargs.temperature=0 is out of range; give a number > 0"),
    ("type=HEX_adaptive hex.quantile=1.5", "hex.quantile=1.5 is out of range; give a number > 0 and <= 1"),
    ("type=HEX_adaptive tau_plus=1", "tau_plus=1 is out of range; give a number >= 0 and < 1"),
    ("data.std=[0]", "data.std=[0] is out of range; give a number > 0"),
    ("data.fraction=0", "data.fraction=0 is no share; give a number in (0, 1], or -1 for all images"),
    ("seed=99999999999", "seed=99999999999 is out of range; give a number >= 0 and <= 4294967295"),
    ("augmentations=[{num_crops:0}]", "augmentations[0].num_crops=0 is out of range"),
    ("augmentations=[{num_crops:2,color_jitter:{hue:0.9}}]", "color_jitter.hue=0.9 is out of range"),
    ("limit_train_batches=2.5", "limit_train_batches=2.5 is neither a number of batches nor a share"),
    ("max_time=soon", "max_time='soon' is no duration; give DD:HH:MM:SS"),
    ("devices=0", "devices=0 is unknown; give a number >= 1, a list such as [0, 1], or auto"),
    ("devices=[0,0]", "devices=[0, 0] names a device twice"),
    (f"name={'n' * 300}", "name becomes part of a file's name; give one of at most 180 bytes"),
    ("augmentations.5.crop_size=8", "augmentations.5.crop_size: a list has no such entry; 0 is the first"),
    ("augmentations.-1.crop_size=8", "augmentations.-1.crop_size: a list has no such entry"),
    ("augmentations.x=8", "augmentations.x: a list has no such entry"),
    ("name=../../elsewhere", "name='../../elsewhere' becomes part of a file's name"),
    # values that don't go together
    ("augmentations=[{num_crops:1}]", "augmentations make 1 full-size views; simclr compares at least 2"),
    ("min_epochs=100", "min_epochs=100 is more than max_epochs=60"),
    ("augmentations=[{num_crops:2,rrc:{crop_min_scale:0.9,crop_max_scale:0.1}}]", "crop_min_scale=0.9 is more than"),
    ("type=HEX_fixed distance_thresh=0.2 distance_min=0.5", "distance_min=0.5 is above hex.distance_thresh=0.2"),
    ("type=HEX_adaptive beta=1 hex.beta=2", "beta=1 and hex.beta=2 disagree; give one of them only"),
    ("type=superclass", "type='superclass' needs a label tree, and digits has one level only"),
    ("type=HCL hex.variant=release", "hex.variant='release' has no meaning with hcl"),
    ("data.num_classes=7", "data.num_classes=7, but digits has 10 classes; leave it out"),
    ("data.sampler=pxk data.per_class=1", "data.per_class=1 makes batches of 128 classes, and there are 10"),
    ("data.sampler=balanced data.sampler_level=9", "data.sampler_level=9 is out of range; give 0 (coarsest) to 0"),
    ("overfit_batches=5", "overfit_batches needs views made image by image; set data.augment=sample, too"),
    # settings that would do nothing: something else would be trained than was asked for
    ("type=HEX_fixed hex.quantile=0.9", "hex.quantile does nothing here: it is read with type=HEX_adaptive"),
    ("beta=2", "beta does nothing here: it is read with type=HEX_fixed, HEX_adaptive"),
    (
        "type=HEX_adaptive alpha=0.5",
        "alpha does nothing here: it is read with another type than standard or HEX, in barlow_twins, byol",
    ),
    ("momentum.base_tau=0.9", "momentum.base_tau does nothing here: it is read in methods with a slow copy"),
    ("scheduler.lr_decay_steps=[5]", "scheduler.lr_decay_steps does nothing here: it is read with scheduler.name=step"),
    ("data.per_class=2", "data.per_class does nothing here: it is read with data.sampler=pxk"),
    ("data.train_path=/nowhere", "data.train_path does nothing here: it is read for other data sets than digits"),
    ("checkpoint.enabled=false checkpoint.frequency=3", "checkpoint.frequency does nothing here"),
    ("gradient_clip_algorithm=norm", "gradient_clip_algorithm does nothing here: it is read with gradient_clip_val"),
    ("plugins=fast", "plugins does nothing here"),
    ("method=dino method_kwargs.num_prototypes=8 type=HEX_adaptive", "does nothing in method=dino; take standard"),
    ("type=HEX hex.eye=projection", "finds relatives while it trains, too late to show them"),
    ("method=supcon type=HEX", "would give a relative's view the label of the image"),
    ("type=neighbours hex.show=oracle", "goes with a type that finds relatives in the batch; those of type=neighbours"),
    ("type=HEX hex.drawn=3", "hex.drawn does nothing here: it is read with type=neighbours, shuffled"),
    ("type=HEX hex.beta=2", "hex.beta does nothing here"),
    ("type=HEX_adaptive hex.show_share=1", "hex.show_share does nothing here: it is read with hex.show or type=HEX"),
    ("hex.show=neighbours hex.purity=0.5", "hex.purity does nothing here: it is read with type=oracle"),
    # words that are no settings
    ("max_epochs", "'max_epochs' is not key=value"),
    ("--fast", "unrecognized arguments: --fast"),
    ("~nothing", "'~nothing' takes out a key that isn't there"),
    ("optimizer.lr=${nowhere}", "optimizer.lr: Interpolation key 'nowhere' not found"),
    ("hydra=null", "'hydra=null' names no file of a group"),
    ("name=${oc.env:SECRET}", "command line: name: '${oc.env:SECRET}' is refused"),
    ("num_workers=0", "num_workers is not a key; did you mean 'data.num_workers'?"),
    ("resume_from_checkpoint=nowhere.ckpt", "resume_from_checkpoint='nowhere.ckpt' does not exist"),
    ("resume_from_checkpoint=scripts", "resume_from_checkpoint='scripts' is a folder without *.ckpt files"),
]

# a whole command line -> what the message says; exit code 2
COMMANDS = [
    ("pretran", "'pretran' is no command; did you mean 'pretrain'?"),
    ("pretrain", "no recipe is named; give a data set and a recipe"),
    ("pretrain nowhere x.yaml", "the folder 'nowhere' doesn't exist"),
    ("pretrain scripts/pretrain/digits simclrr.yaml", "has no recipe 'simclrr.yaml'; did you mean 'simclr'?"),
    ("pretrain scripts/pretrain/digits", "is a folder; name a file in it as well"),
    ("pretrain --config-name hex.yaml", "go together; one of them is missing"),
    ("linear scripts/linear/digits linear.yaml", "pretrained_feature_extractor is missing"),
    ("linear scripts/linear/digits linear.yaml pretrained_feature_extractor=x.ckpt", "'x.ckpt' does not exist"),
    ("linear scripts/linear/digits linear.yaml pretrained_feature_extractor=scripts", "without *.ckpt files"),
    ("inspect nowhere", "nowhere"),
    ("evaluate features=x.npz top_k=[]", "top_k=[] is empty; give at least one"),
    ("knn features=x.npz k=[]", "k=[] is empty; give at least one"),
]

# text of a recipe -> what the message says; exit code 2
RECIPES = [
    (b"method: [simclr\n", "recipe.yaml:2: this is no YAML: did not find expected ',' or ']'"),
    (b"method:\n\tname: simclr\n", "recipe.yaml:2: this is no YAML: found character"),
    (b"max_epochs: 1\nmax_epochs: 2\n", "recipe.yaml:2: this is no YAML: found duplicate key max_epochs"),
    (
        b"method: !!python/object/apply:os.system ['touch pwned']\n",
        "the tag !!python/object/apply:os.system is refused",
    ),
    (b"method: !!python/name:os.system\n", "the tag !!python/name:os.system is refused"),
    (b"3\n", "recipe.yaml: it is no recipe; give lines of the form key: value"),
    (b"!!set {a}\n", "recipe.yaml: it is no recipe"),
    (b"- a\n- b\n", "it is a list; a recipe has lines"),
    (b"~: 2\n", "give keys that are texts"),
    (b"name: caf\xe9\n", "'utf-8' codec can't decode"),
    (b"defaults: [nowhere, _self_]\n", "asks for nowhere.yaml, which isn't there"),
    (b"method: ${nowhere}\n", "method: Interpolation key 'nowhere' not found"),
]

# words behind a short run of digits -> what the message says; found when the run is built or starts: exit code 1
RUNS = [
    ("backbone.name=resnet19", "backbone.name='resnet19' is unknown; did you mean 'resnet18'"),
    ("backbone.kwargs.depth=3", "backbone.kwargs={'in_chans': 1, 'depth': 3} don't fit the backbone 'test_resnet'"),
    ("optimizer.kwargs.momentumm=1", "don't fit the optimizer 'adamw'"),
    ("optimizer.kwargs.betas=[2,3]", "don't fit the optimizer 'adamw': Invalid beta parameter at index 0: 2"),
    ("optimizer.batch_size=100000", "optimizer.batch_size=100000 is larger than the training set of 1437 images"),
    ("data.mean=[0.5,0.5,0.5]", "mean has 3 values and std 1 for 1 channels"),
    ("data.no_labels=true", "data.no_labels=True needs a folder of images"),
    ("data.labelled_share=0.5", "for training images of which some have no class, and here all 1437 have one"),
    ("accelerator=gpu", "accelerator=gpu, but no GPU is visible; use accelerator=auto"),
    ("accelerator=tpu", "Lightning refuses the settings"),
    ("strategy=ddpp", "Lightning refuses the settings: You selected an invalid strategy name: `strategy='ddpp'`"),
    ("profiler=fast", "Lightning refuses the settings"),
    ("performance.fused_loss=true", "performance.fused_loss=true needs a CUDA device, not cpu; leave it out"),
    ("val_check_interval=100", "`val_check_interval` (100) must be less than or equal to the number of the training"),
    ("method_kwargs.proj_output_dim=10000000000", "there is not enough memory"),
    ("checkpoint.dir=README.md", "can't be written (Not a directory); choose another"),
    ("data.dataset=cifar10 data.train_path=/nowhere data.download=false", "no complete cifar-10-batches-py in"),
    ("data.dataset=fashion_mnist data.train_path=/nowhere data.download=false", "no Fashion-MNIST in /nowhere"),
]


@pytest.fixture(autouse=True)
def _keep_warning_filters():
    with warnings.catch_warnings():
        yield


def refusal(words, code, capsys):
    """The one line that the words are answered with."""
    assert main(words) == code
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    assert len(lines[0]) < 900
    return lines[0]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("words", "text"), SETTINGS, ids=[words for words, _ in SETTINGS])
def test_settings(words, text, capsys):
    assert text in refusal([*DIGITS, *words.split(" ")], 2, capsys)


@pytest.mark.parametrize(("words", "text"), COMMANDS, ids=[words for words, _ in COMMANDS])
def test_commands(words, text, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert text in refusal(words.split(" "), 1 if words.startswith("inspect") else 2, capsys)


@pytest.mark.parametrize(("content", "text"), RECIPES, ids=[text for _, text in RECIPES])
def test_recipes(content, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_bytes(content)
    assert text in refusal(["pretrain", str(tmp_path), "recipe.yaml"], 2, capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def short_run(folder, *words):
    return [*DIGITS, *SMALL.split(), *SHORT.split(), *QUIET.split(), f"checkpoint.dir={folder / 'runs'}", *words]


@pytest.mark.parametrize(("words", "text"), RUNS, ids=[words for words, _ in RUNS])
def test_runs(words, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert text in refusal(short_run(tmp_path, *words.split(" ")), 1, capsys)
    assert not list(tmp_path.rglob("*.ckpt"))


def picture():
    return Image.fromarray(np.random.RandomState(0).randint(0, 255, (20, 20, 3), dtype=np.uint8))


def huge_png(side):
    """A PNG of a kilobyte that says it has side x side pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.fixture
def folder(tmp_path):
    """Two classes of four pictures."""
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(4):
            picture().save(tmp_path / "images" / name / f"{index}.png")
    return tmp_path / "images"


def truncate(file):
    file.write_bytes(file.read_bytes()[:200])


def dangle(file):
    file.unlink()
    file.symlink_to("nowhere.png")


BROKEN = {
    "truncated": (truncate, 1, "3.png can't be read as an image (image file is truncated)"),
    "empty": (lambda file: file.write_bytes(b""), 1, "3.png can't be read as an image (it is empty (0 bytes))"),
    "text": (lambda file: file.write_text("hello"), 1, "3.png can't be read as an image (no known image format)"),
    "bomb": (lambda file: file.write_bytes(huge_png(60000)), 1, "more pixels than data.max_pixels allows"),
    "dangling link": (dangle, 2, "3.png is a link to a file that isn't there"),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("augment", ["batch", "sample"])
@pytest.mark.parametrize("how", BROKEN)
def test_broken_images(how, augment, folder, tmp_path, capsys):
    spoil, code, text = BROKEN[how]
    spoil(folder / "b" / "3.png")
    words = [*CUSTOM.split(), f"data.train_path={folder}", f"data.augment={augment}"]
    words += [f"data.cache_dir={tmp_path / 'cache'}"] if augment == "batch" else []
    assert text in refusal(short_run(tmp_path, *words), code, capsys)
    if augment == "batch":
        assert main(short_run(tmp_path, *words, "data.on_error=skip")) == 0
        assert "1 files were skipped" in capsys.readouterr().out


FOLDERS = [
    ("data.train_path={}/a", 2, "holds only files; expected one folder per class with images inside"),
    ("data.train_path={}/a/1.png", 2, "a/1.png is a file"),
    ("data.train_path={}/c", 2, "does not exist"),
    ("data.train_path=s3://bucket/train", 2, "is an address; images are files: mount the store"),
    ("data.train_path={} data.dataset=fashion_mnist", 2, "holds class folders (a, b, ..) and no fashion_mnist"),
    ("data.val_path={}/a data.dataset=cifar10", 2, "data.val_path: {}/a holds images and no cifar10"),
    ("data.train_path={} data.format=h5", 2, "is no HDF5 file"),
    ("data.train_path={} data.format=table", 2, "is a folder; data.format=table needs a file: .csv"),
    ("data.train_path={} data.num_classes=5", 2, "data.num_classes=5, but {} has 2 classes"),
    ("data.train_path={} optimizer.batch_size=9", 1, "optimizer.batch_size=9 is larger than the training set of 8"),
    ("data.train_path={} data.fraction=0.01", 1, "data.fraction=0.01 of 8 images"),
]


@pytest.mark.parametrize(("words", "code", "text"), FOLDERS, ids=[words for words, *_ in FOLDERS])
def test_folders(words, code, text, folder, tmp_path, capsys):
    words = [*CUSTOM.split(), *words.format(folder).split(" ")]
    assert text.format(folder) in refusal(short_run(tmp_path, *words), code, capsys)


def test_shards_of_other_libraries(tmp_path, capsys):
    (tmp_path / "index.json").write_text('{"chunks": []}')
    words = [*CUSTOM.split(), f"data.train_path={tmp_path}"]
    assert "looks like shards of LitData or MosaicML" in refusal(short_run(tmp_path, *words), 2, capsys)


TABLES = [
    (b"", "", "has no rows"),
    (b"a,b\n1,2\n", "", "has no column of image files; set data.path_column to one of a, b"),
    (b"path,label\na/1.png,x,y\n", "", "can't be read as csv (row 2 has 3 cells, the header 2)"),
    (b"\x8d\xff\x00", "", "can't be read as csv ('utf-8' codec can't decode"),
    (b"path,label\na/1.png,x\n", "data.path_column=file", "has no column 'file'; it has path, label"),
    (b"path,label\na/1.png,x\n", "data.label_columns=[kind]", "has no column 'kind'; it has path, label"),
]


@pytest.mark.parametrize(("content", "words", "text"), TABLES, ids=[text for *_, text in TABLES])
def test_tables(content, words, text, folder, tmp_path, capsys):
    table = folder / "table.csv"
    table.write_bytes(content)
    given = [*CUSTOM.split(), "data.format=table", f"data.train_path={table}", *words.split()]
    assert text in refusal(short_run(tmp_path, *given), 2, capsys)


class Evil:
    """A pickle that leaves a file behind if it is loaded as code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The last.ckpt of a run of one step."""
    folder = tmp_path_factory.mktemp("trained")
    with warnings.catch_warnings():
        assert main(short_run(folder)) == 0
    return next(folder.rglob("last.ckpt"))


def pickled(trained, folder):
    with (folder / "x.ckpt").open("wb") as file:
        pickle.dump(Evil(folder / "pwned"), file)


def saved(change):
    def make(trained, folder):
        torch.save(change(torch.load(trained, weights_only=True), folder), folder / "x.ckpt")

    return make


def written(change):
    return lambda trained, folder: (folder / "x.ckpt").write_bytes(change(trained.read_bytes()))


# what is in the file -> the message of `solo linear` and of resuming
CHECKPOINTS = {
    "empty": (written(lambda data: b""), "is empty (0 bytes)", "is empty (0 bytes)"),
    "text": (written(lambda data: b"hello"), "is not a checkpoint", "is not a checkpoint"),
    "truncated": (written(lambda data: data[: len(data) // 2]), "is truncated or damaged", "is truncated or damaged"),
    "code": (pickled, "was refused: loading it would run code", "was refused: loading it would run code"),
    "code inside": (
        saved(lambda ckpt, folder: {"state_dict": Evil(folder / "pwned")}),
        "was refused: loading it would run code",
        "was refused: loading it would run code",
    ),
    "a list": (saved(lambda ckpt, folder: [1]), "it holds a list and no 'state_dict'", "it holds a list and no"),
    "no weights": (saved(lambda ckpt, folder: {"a": 1}), "it holds keys a and no 'state_dict'", "it holds keys a"),
    "weights only": (
        saved(lambda ckpt, folder: {"state_dict": ckpt["state_dict"]}),
        "doesn't name its backbone; set backbone.name",
        "doesn't say where its run was",
    ),
    "another method": (
        saved(lambda ckpt, folder: {**ckpt, "state_dict": {"projector.weight": torch.zeros(1)}}),
        "nothing matches, this would evaluate a random backbone",
        "doesn't fit",
    ),
}


@pytest.mark.parametrize("what", CHECKPOINTS)
def test_checkpoints(what, trained, tmp_path, capsys):
    make, linear, resumed = CHECKPOINTS[what]
    make(trained, tmp_path)
    file = tmp_path / "x.ckpt"
    words = [
        "linear",
        "scripts/linear/digits",
        "linear.yaml",
        *QUIET.split()[:3],
        f"pretrained_feature_extractor={file}",
    ]
    assert linear in refusal(words, 1, capsys)
    assert resumed in refusal(short_run(tmp_path, f"resume_from_checkpoint={file}"), 1, capsys)
    assert not (tmp_path / "pwned").exists()


def test_another_architecture(trained, capsys):
    words = ["linear", "scripts/linear/digits", "linear.yaml", *QUIET.split()[:3]]
    text = refusal([*words, f"pretrained_feature_extractor={trained}", "backbone.name=resnet18"], 1, capsys)
    assert "(trained with 'test_resnet') doesn't fit backbone.name='resnet18'" in text


PROGRAMS = [
    ("pretran", 2, "'pretran' is no command"),
    ("pretrain scripts/pretrain/digits simclr.yaml optimizer.lr=nan", 2, "optimizer.lr=nan has the wrong type"),
]


@pytest.mark.parametrize(("words", "code", "text"), PROGRAMS, ids=[words for words, *_ in PROGRAMS])
def test_programs(words, code, text):
    command = [sys.executable, "-m", "solo", *words.split(" ")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ") and text in done.stderr and "Traceback" not in done.stderr


def test_enough_of_them():
    tables = (SETTINGS, COMMANDS, RECIPES, RUNS, BROKEN, FOLDERS, TABLES, CHECKPOINTS, PROGRAMS)
    assert sum(map(len, tables)) >= 60
