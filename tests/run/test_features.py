import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from solo.run.features import FeatureSet, extract
from solo.run.measure import feature_loader


def test_every_image_once_in_eval_mode_and_without_gradient():
    backbone = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    images, targets = torch.randn(10, 3), torch.arange(10)
    found = extract(backbone, DataLoader(TensorDataset(images, targets), 4), torch.device("cpu"), "test")
    assert torch.allclose(found.features, backbone.eval()(images)) and torch.equal(found.targets, targets)
    assert not found.features.requires_grad and not backbone.training and backbone[1].num_batches_tracked == 0


def test_batches_follow_the_seed_and_the_epoch():
    features = FeatureSet(torch.arange(10.0)[:, None], torch.arange(10))

    def order(loader):
        batches = list(loader)
        assert [len(batch[0]) for batch in batches] == [4, 4, 2]
        assert all(torch.equal(x[:, 0].long(), y) for x, y in batches)
        return torch.cat([y for _, y in batches]).tolist()

    one, same, other = (feature_loader(features, 4, seed) for seed in (1, 1, 2))
    first, second = order(one), order(one)
    assert sorted(first) == list(range(10)) and first != second and first != order(other)
    same.sampler.set_epoch(1)  # as Lightning does when a run is resumed
    assert order(same) == second
    assert order(feature_loader(features, 4, None)) == list(range(10))
