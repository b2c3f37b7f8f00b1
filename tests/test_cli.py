from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import solo
from solo import cli
from solo.errors import UserError

ROOT = Path(solo.__file__).parents[1]
DIGITS = ["pretrain", "scripts/pretrain/digits", "hex.yaml"]
HEAVY = ("torch", "lightning", "torchvision", "timm", "sklearn")


class FakeRun:
    """Stands for the module of a command."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.cfg = error, None

    def run(self, cfg):
        self.cfg = cfg
        if self.error:
            raise self.error


@pytest.fixture
def fake(monkeypatch):
    run = FakeRun()
    monkeypatch.setitem(sys.modules, "solo.run.pretrain", run)
    return run


def test_run_gets_the_resolved_config(fake):
    assert cli.main([*DIGITS, "max_epochs=3", "optimizer.batch_size=64"]) == 0
    assert fake.cfg.max_epochs == 3 and fake.cfg.data.num_classes == 10
    assert fake.cfg.hex.policy == "adaptive" and fake.cfg.optimizer.lr_scaled


def test_both_forms_from_any_directory(fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = ["pretrain", "scripts/pretrain/digits", "hex.yaml", "seed=7"]
    configs = []
    for words in (
        first,
        ["pretrain", "seed=7", "--config-path", "scripts/pretrain/digits", "--config-name", "hex.yaml"],
        ["pretrain", f"--config-path={ROOT}/scripts/pretrain/digits", "--config-name=hex", "seed=7"],
        ["pretrain", f"{ROOT}/scripts/pretrain/digits/hex.yaml", "++seed=7"],
    ):
        assert cli.main(words) == 0
        configs.append(fake.cfg)
    assert all(config == configs[0] for config in configs) and configs[0].seed == 7
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("no such thing"), 1, "error: no such thing\n"),
        (
            PermissionError(13, "Permission denied", "/birds"),
            1,
            "error: /birds can't be opened: Permission denied; change its permissions or choose another folder\n",
        ),
        (KeyboardInterrupt(), 130, "stopped by the keyboard\n"),
    ],
)
def test_exit_codes_of_a_run(fake, capsys, error, code, text):
    fake.error = error
    assert cli.main(DIGITS) == code
    assert capsys.readouterr().err == text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["pretran"], "did you mean 'pretrain'?"),
        (["pretrain", "digits", "x" * 5000], "too long for the name of a file"),
        (["pretrain", "x" * 5000, "hex"], "doesn't exist"),
        (["evaluate", f"checkpoint={'x' * 5000}"], "too long for the name of a file"),
        (["evaluate", "nowhere/run"], "'nowhere/run' doesn't exist; give a checkpoint, the folder of a run"),
        (["recipe", "linaer"], "did you mean 'linear'?"),
        (["pretrain", "--config-path", "scripts/pretrain/digits", "--config-name", "hex", "x"], "'x' is not key=value"),
        (["pretrain"], "no recipe is named"),
        ([*DIGITS, "-m"], "--multirun needs a word with several values"),
        ([*DIGITS, "-m", "seed=1,2", "optimizer.lr=-1"], "optimizer.lr=-1 is out of range"),
        (
            [*DIGITS, "-m", "seed=1,2", "hydra/launcher=slurm"],
            "'hydra/launcher=slurm' does nothing here",
        ),
        ([*DIGITS, "--fast"], "unrecognized arguments: --fast"),
        ([*DIGITS, "max_epochs"], "'max_epochs' is not key=value"),
        (["pretrain", "--config-path", "scripts/pretrain/digits"], "go together"),
        ([*DIGITS, "type=HEX_adaptve"], "command line: type='HEX_adaptve' is unknown; did you mean 'HEX_adaptive'?"),
        ([*DIGITS, "data.dataset=custom", "data.train_path=nowhere"], "the data folder nowhere does not exist"),
        (["linear", "scripts/linear/digits", "linear.yaml"], "pretrained_feature_extractor is missing"),
        (["linear", "scripts/linear/digits", "linear.yaml", "pretrained_feature_extractor=x.ckpt"], "does not exist"),
    ],
)
def test_wrong_words(words, text, capsys):
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert text in err and err.startswith("error: ") and err.count("\n") == 1


def test_several_problems_one_a_line(capsys):
    words = [*DIGITS, "optimizer.lrr=1", "hex.tau_plus=2", "method_kwargs.temprature=3", "data.num_workers=many"]
    assert cli.main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: 4 problems" and len(lines) == 5
    assert all(line.startswith("  command line: ") for line in lines[1:])


def test_notes_are_said(fake, capsys):
    assert cli.main([*DIGITS, "++dali.device=gpu"]) == 0
    assert capsys.readouterr().err == "note: command line: dali is ignored: images are read without DALI\n"


def test_cfg_resolved(capsys):
    assert cli.main([*DIGITS, "--cfg", "resolved", "optimizer.lr=0.8", "optimizer.batch_size=128"]) == 0
    out = capsys.readouterr().out
    rows = dict(line.split(": ", 1) for line in out.splitlines() if not line.startswith("#"))
    assert rows["optimizer.lr"].split() == "0.4 # command line, x global batch 128 / 256".split()
    assert rows["hex.policy"].startswith("adaptive") and "hex.yaml:" in rows["hex.policy"]
    assert rows["data.channels"].endswith("# data set digits")
    assert rows["wandb.enabled"].split() == ["false", "#", "default"]
    assert "# negatives per anchor 254 = 2 views x 128 - 2" in out


@pytest.mark.fault(1, "`-m seed=1,2 --cfg resolved`, `--preview`", "each job is shown, none starts")
@pytest.mark.parametrize("flag", [["--cfg", "resolved"], ["--preview"]])
def test_a_sweep_can_be_looked_at(monkeypatch, capsys, flag):
    seen = []
    preview = FakeRun()
    preview.preview = lambda cfg, number: seen.append((cfg.seed, number))
    monkeypatch.setitem(sys.modules, "solo.run.pretrain", preview)
    monkeypatch.setattr("subprocess.call", None)  # nothing may start
    assert cli.main([*DIGITS, "-m", "seed=1,2", *flag]) == 0
    out = capsys.readouterr().out
    assert "# run 1 of 2: seed=1\n" in out and "# run 2 of 2: seed=2\n" in out
    assert seen == ([(1, 1), (2, 2)] if flag == ["--preview"] else [])
    assert out.count("\nseed: ") == (0 if seen else 2)


@pytest.mark.fault(
    1, "a recipe whose name has `=` or spaces; pipes and folders named like recipes", "read; not offered"
)
def test_names_of_recipes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("n m=1.yaml", "s=1.yaml"):
        (tmp_path / name).write_text("defaults: [/none]\n")
        assert cli.main(["pretrain", ".", name]) == 2
        assert "which isn't there" in capsys.readouterr().err
    os.mkfifo(tmp_path / "pipe.yaml")
    assert cli.main(["pretrain", ".", "pipe"]) == 2
    assert capsys.readouterr().err.endswith("has no recipe 'pipe.yaml'; choose n m=1.yaml, s=1.yaml\n")


@pytest.mark.fault(1, "the working directory was removed", "one line")
def test_no_working_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert cli.main(["recipe", "pretrain", "digits", "hex"]) == 1
    assert "the working directory was removed, change to another one" in capsys.readouterr().err


@pytest.mark.fault(
    1, "`~` and `~nobody` where there is no home, and no folder for temporary files", "one line, and what helps"
)
@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (RuntimeError("Could not determine home directory."), 2, "no such user or home"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), 1, "set TMPDIR"),
    ],
)
def test_no_home_and_no_place_for_temporary_files(error, code, line, fake, capsys):
    fake.error = error
    assert cli.main(DIGITS) == code
    said = capsys.readouterr().err.splitlines()
    assert line in said[-1] and said[-1].startswith("error: ")


@pytest.mark.fault(
    5, "no file can be opened any more, the disk or a process limit is reached", "one line, and what helps"
)
@pytest.mark.parametrize(("number", "line"), [(errno.EMFILE, "ulimit -n"), (errno.ENOSPC, "free the disk")])
def test_what_the_system_refuses(number, line, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cli, "read_config", fail)
    assert cli.main(["pretrain", "digits", "hex", "--cfg", "resolved"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: the system refuses") and line in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["pretrain", "digits", "hex"], "pretrain/digits"),
        (["pretrain", "food101", "hex_nnclr.yaml"], "pretrain/food101"),
        (["linear", "food101", "linear", "checkpoint=x.ckpt"], "linear/food101"),
        (["linear", "scripts/linear/food101", "linear.yaml", "checkpoint=x.ckpt"], "linear/food101"),
        (["linear", "cifar100", "finetune", "checkpoint=x.ckpt"], "finetune/cifar100"),
        (["knn", "digits", "checkpoint=x.ckpt"], "knn/digits"),
    ],
)
def test_short_forms_from_any_folder(words, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*words, "--cfg", "resolved"]) == 0
    name = folder.split("/")[1]
    assert f"data.dataset: {name} " in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["pretrain", "food101", "byol"],
        ["pretrain", "digits", "hex", "optimizer.lr=1e-5", "name=1e-5", "method_kwargs.temperature=0.3"],
        ["pretrain", "cifar100", "swav_multicrop"],
        ["linear", "imagenet100", "barlow"],
        ["knn", "cifar10", "knn"],
    ],
)
def test_a_printed_recipe_says_the_same(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command, *recipe = words
    assert cli.main(["recipe", *words]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# ") and "  # " in text
    Path("mine.yaml").write_text(text)
    source = [] if command == "pretrain" else ["checkpoint=x.ckpt"]
    values = []
    for place in (recipe, ["mine.yaml"]):
        parsed = cli.read_config(command, place[:2], [*place[2:], *source], for_run=False)
        values.append(parsed.values)
    assert values[0] == values[1]


def test_recipes_are_listed(capsys):
    assert cli.main(["recipe", "pretrain"]) == 0 and "food101\n" in capsys.readouterr().out
    assert cli.main(["recipe", "pretrain", "food101"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["hex", "all4one"]
    assert cli.main(["recipe", "--help"]) == 0 and "solo recipe pretrain food101 byol" in capsys.readouterr().out


@pytest.mark.fault(1, "`solo evaluate RUN_FOLDER`", "the same as `checkpoint=RUN_FOLDER`")
@pytest.mark.parametrize("command", ["evaluate", "analyze", "knn", "umap"])
def test_the_folder_of_a_run_is_enough(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "ep=0 run"
    run.mkdir()
    (run / "last.ckpt").touch()
    monkeypatch.setattr(cli, "saved_data", lambda path: {"dataset": "digits"})
    for place in ([str(run)], ["ep=0 run"], ["ep=0 run/last.ckpt"]):
        assert cli.main([command, *place, "--cfg", "resolved"]) == 0
        out = capsys.readouterr().out
        assert place[0] in out and "data.dataset: digits" in out


def test_linear_takes_the_recipe_of_a_runs_data_set(tmp_path, monkeypatch, capsys):
    (tmp_path / "last.ckpt").touch()
    own = {"dataset": "custom", "train_path": "a b/train", "val_path": "a b/val"}
    monkeypatch.setattr(cli, "saved_data", lambda path: own)
    for child in ("train", "val"):
        (tmp_path / "a b" / child / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["linear", "last.ckpt", "--cfg", "resolved"]) == 0
    assert "data.train_path: a b/train" in capsys.readouterr().out


def test_too_many_loader_processes(fake, monkeypatch, capsys):
    monkeypatch.setattr("solo.cores.usable_cores", lambda: 2)
    assert cli.main([*DIGITS, "data.num_workers=4"]) == 0
    assert capsys.readouterr().err == "note: data.num_workers=4: 2 are started, one for each core\n"


def test_help_names_every_key(capsys):
    from solo.args.fields import walk
    from solo.methods.catalogue import CATALOGUE

    configured = {name: command for name, command in cli.COMMANDS.items() if command.schema is not None}
    for name, command in configured.items():
        assert cli.main([name, "--help"]) == 0
        words = capsys.readouterr().out.split()
        assert {key for key, _ in walk(command.schema)} <= set(words)
    assert cli.main([]) == 0 and "pretrain" in capsys.readouterr().out
    assert all(found.help for facts in CATALOGUE.values() for _, found in walk(facts.kwargs))
    assert all(found.help for command in configured.values() for _, found in walk(command.schema))


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == solo.__version__


def timed(script: str, *words: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """A program of its own, and its processor time in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["scripts/pretrain/digits", "hex.yaml", "--cfg", "resolved"], 0),
        (["x", "y", "z=1"], 2),
        (["scripts/pretrain/digits", "hex.yaml", "type=nonsense"], 2),
    ],
)
def test_answers_at_once_and_without_torch(words, code):
    script = (
        "import sys; from solo.cli import main; code = main(sys.argv[1:])\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done, seconds = timed(script, "pretrain", *words)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert seconds < 10 * timed("import omegaconf")[1]  # about 4 times on an idle machine


@pytest.mark.parametrize(
    "words",
    [["-m", "solo", "pretrain"], ["main_pretrain.py"], ["main_linear.py"], ["main_knn.py"], ["main_umap.py"]],
)
def test_entry_points(words):
    done = subprocess.run([sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "usage: solo" in done.stdout


def test_subpackages_are_attributes():
    assert solo.args.__name__ == "solo.args"
    with pytest.raises(AttributeError, match="nonsense"):
        _ = solo.nonsense
