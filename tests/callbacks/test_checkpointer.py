import json
import re

import pytest
import torch
from omegaconf import OmegaConf

from solo.callbacks import Checkpointer
from solo.errors import NonFiniteError, UserError


def test_files_of_a_run_and_their_layout(cfg, fit, tmp_path):
    checkpointer = Checkpointer(cfg, tmp_path)
    fit([checkpointer])
    run = checkpointer.path
    assert re.fullmatch(r"offline-(?=(.*[a-z]){4})(?=(.*\d){4})[a-z\d]{8}", run.name)
    assert {file.name for file in run.iterdir()} == {"args.json", "last.ckpt", f"tiny-{run.name}-ep=2.ckpt"}
    assert checkpointer.last_ckpt == str(run / checkpointer.ckpt_placeholder.format(2))
    args = json.loads((run / "args.json").read_text())
    assert args == {**OmegaConf.to_container(cfg), "wandb_run_id": None}
    checkpoint = torch.load(run / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 2 and "layer.weight" in checkpoint["state_dict"]


@pytest.mark.parametrize(("frequency", "epochs"), [(1, {0, 1, 2, 3}), (2, {0, 2, 3}), (5, {0, 3})])
def test_frequency_keep_prev_and_the_last_epoch(cfg, fit, tmp_path, frequency, epochs):
    checkpointer = Checkpointer(cfg, tmp_path, frequency=frequency, keep_prev=True)
    fit([checkpointer], max_epochs=4)
    found = {int(file.stem.split("ep=")[1]) for file in checkpointer.path.glob("*ep=*.ckpt")}
    assert found == epochs
    assert torch.load(checkpointer.path / "last.ckpt")["epoch"] == 3


def test_fast_dev_run_writes_too(cfg, fit, tmp_path):
    checkpointer = Checkpointer(cfg, tmp_path)
    fit([checkpointer], fast_dev_run=True)
    assert (checkpointer.path / "last.ckpt").is_file()


def test_a_resumed_run_is_the_uninterrupted_one(cfg, fit, tmp_path):
    whole = Checkpointer(cfg, tmp_path / "whole", keep_prev=True)
    fit([whole], max_epochs=4)
    first = whole.path / whole.ckpt_placeholder.format(1)
    rest = Checkpointer(cfg, tmp_path / "rest")
    fit([rest], max_epochs=4, ckpt_path=first, seed=99)  # another state of the random generators at the start
    a, b = (torch.load(run.path / "last.ckpt") for run in (whole, rest))
    assert torch.equal(a["state_dict"]["layer.weight"], b["state_dict"]["layer.weight"])
    assert a["lr_schedulers"] == b["lr_schedulers"] and a["global_step"] == b["global_step"]


def test_another_seed_gives_other_weights(cfg, fit, tmp_path):
    """Guards the test above: the random states do matter."""
    runs = [Checkpointer(cfg, tmp_path / str(seed)) for seed in (0, 1)]
    for seed, run in enumerate(runs):
        fit([run], seed=seed)
    a, b = (torch.load(run.path / "last.ckpt")["state_dict"]["layer.weight"] for run in runs)
    assert not torch.equal(a, b)


def test_the_seed_is_not_touched(cfg, fit, tmp_path):
    checkpointer = Checkpointer(cfg, tmp_path)
    with_it = fit([checkpointer]).lightning_module.layer.weight
    without = fit([]).lightning_module.layer.weight
    assert torch.equal(with_it, without)


def test_a_failed_write_leaves_the_old_file(cfg, fit, tmp_path, monkeypatch):
    checkpointer = Checkpointer(cfg, tmp_path)
    trainer = fit([checkpointer])
    last = checkpointer.path / "last.ckpt"
    before = last.read_bytes()

    def half(path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer, "save_checkpoint", half)
    with pytest.raises(UserError, match="last.ckpt can't be written: No space left"):
        checkpointer.save(trainer)
    assert last.read_bytes() == before
    assert not [file for file in checkpointer.path.iterdir() if file.name.endswith(".tmp")]


def test_defaults_are_written_into_the_configuration():
    cfg = Checkpointer.add_and_assert_specific_cfg(OmegaConf.create({"checkpoint": {"frequency": 7}}))
    written = {"enabled": False, "dir": "trained_models", "frequency": 7, "keep_prev": False}
    assert written.items() <= dict(cfg.checkpoint).items()


def test_random_string_has_the_asked_letters_and_digits():
    text = Checkpointer.random_string(letter_count=3, digit_count=5)
    assert sum(c.isalpha() for c in text) == 3 and sum(c.isdigit() for c in text) == 5


@pytest.mark.fault(
    5, "`callbacks.Checkpointer.last_ckpt` of a checkpoint names another file", "it stays: plain names only"
)
@pytest.mark.parametrize("name", ["{}/precious-ep=1.ckpt", "../precious-ep=1.ckpt", "notes.txt", 7])
def test_a_checkpoint_names_no_file_to_delete(name, cfg, fit, tmp_path):
    first = Checkpointer(cfg, tmp_path / "first", keep_prev=True)
    fit([first])
    for file in (tmp_path / "precious-ep=1.ckpt", tmp_path / "rest" / "precious-ep=1.ckpt"):
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    state = torch.load(first.path / "last.ckpt")
    own = state["callbacks"]["Checkpointer"]
    own["last_ckpt"] = name.format(tmp_path) if isinstance(name, str) else name
    torch.save(state, tmp_path / "shared.ckpt")
    fit([Checkpointer(cfg, tmp_path / "rest")], max_epochs=5, ckpt_path=tmp_path / "shared.ckpt")
    assert all(file.read_text() == "mine" for file in tmp_path.rglob("precious*"))


@pytest.mark.fault(5, "`optimizer.lr=1e6`: the weights become infinite", "they are not saved; `last.ckpt` stays finite")
def test_what_is_not_finite_replaces_nothing(cfg, fit, tmp_path, tiny):
    class Breaks(tiny):
        def on_train_batch_end(self, *_):
            if self.current_epoch == 1:
                self.layer.weight.data.fill_(float("inf"))

    checkpointer = Checkpointer(cfg, tmp_path)
    with pytest.raises(NonFiniteError, match=r"not finite after step 8 \(layer.weight.*stays as it was; try a smaller"):
        fit([checkpointer], model=Breaks())
    for file in checkpointer.path.glob("*.ckpt"):
        saved = torch.load(file)
        assert saved["epoch"] == 0 and saved["state_dict"]["layer.weight"].isfinite().all()


def test_states_that_do_not_fit_are_refused(cfg, fit, tmp_path):
    first = Checkpointer(cfg, tmp_path / "first")
    fit([first])
    state = torch.load(first.path / "last.ckpt")
    state["callbacks"]["Checkpointer"]["processes"] = [{"rng": {"torch": 1}}]
    torch.save(state, tmp_path / "shared.ckpt")
    with pytest.raises(UserError, match="states of processes in the checkpoint don't fit this run"):
        fit([Checkpointer(cfg, tmp_path / "rest")], max_epochs=5, ckpt_path=tmp_path / "shared.ckpt")
