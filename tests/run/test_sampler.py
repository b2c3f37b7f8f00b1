"""`data.sampler` in a run: both ways to make views, and a run that is continued."""

import warnings

import pytest
import torch

from solo.run import pretrain


@pytest.fixture(autouse=True)
def _keep_warning_filters():
    with warnings.catch_warnings():
        yield


def data(**keys):
    return {"dataset": "digits", "num_workers": 0, "sampler": "pxk", **keys}


@pytest.mark.parametrize("augment", ["batch", "sample"])
def test_the_loader_makes_the_samplers_batches_and_says_what_they_hold(pretrain_cfg, augment, capsys):
    loader = pretrain.train_loader(pretrain_cfg(data=data(augment=augment, per_class=8)))
    _, views, targets = next(iter(loader))
    assert len(views) == 2 and len(views[0]) == 16
    assert sorted(torch.unique(targets, return_counts=True)[1].tolist()) == [8, 8]
    assert "7.0 of the same digit (by chance" in capsys.readouterr().out


def test_both_ways_take_the_same_images(pretrain_cfg):
    loaders = [pretrain.train_loader(pretrain_cfg(data=data(augment=augment))) for augment in ("batch", "sample")]
    first, second = ([indexes.tolist() for indexes, *_ in loader] for loader in loaders)
    assert first == second and len(first) > 50


@pytest.mark.parametrize("sampler", ["random", "hierarchical"])
def test_half_of_each_batch_has_labels_if_asked_for(pretrain_cfg, sampler, capsys):
    settings = data(sampler=sampler, label_fraction=0.1, labelled_share=0.5)
    loader = pretrain.train_loader(pretrain_cfg(data=settings))
    assert len(loader) == 1437 // 16
    assert all((targets >= 0).sum() == 8 for _, _, targets in loader)
    assert f"data.sampler={sampler}, data.labelled_share=0.5: up to 1,424 of 1,437" in capsys.readouterr().out


@pytest.mark.thorough
@pytest.mark.parametrize("augment", ["batch", "sample"])
def test_a_continued_run_takes_the_images_of_one_that_was_not_stopped(pretrain_cfg, tmp_path, augment):
    def run(folder, epochs, resume=None):
        root = tmp_path / folder
        pretrain.run(
            pretrain_cfg(
                data=data(sampler="hierarchical", augment=augment),
                scheduler={"name": "none"},
                checkpoint={"enabled": True, "dir": str(root)},
                max_epochs=epochs,
                resume_from_checkpoint=resume,
                resume_allow=["max_epochs"],
            )
        )
        (made,) = (root / "simclr").iterdir()
        return made

    whole = torch.load(run("whole", 2) / "last.ckpt")["state_dict"]
    part = run("part", 1)
    once = torch.load(part / "last.ckpt")["state_dict"]
    continued = torch.load(run("part", 2, str(part)) / "last.ckpt")["state_dict"]
    assert all(torch.equal(whole[key], continued[key]) for key in whole)
    assert not torch.equal(whole["backbone.conv1.0.weight"], once["backbone.conv1.0.weight"])
