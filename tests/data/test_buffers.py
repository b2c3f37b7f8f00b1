from __future__ import annotations

import copy
import pickle

import torch

from solo.data.views.batched import BatchAugment, Buffers


def test_memory_is_given_again_only_when_nobody_holds_it():
    buffers = Buffers()
    first, second = buffers((2, 3)), buffers((2, 3))
    places = {first.data_ptr(), second.data_ptr()}
    assert len(places) == len(buffers) == 2
    row, second = first[0], None
    del first
    assert buffers((2, 3)).data_ptr() in places - {row.data_ptr()}
    kept = row.clone()
    held = [buffers((2, 3)).fill_(7.0) for _ in range(3)]
    assert torch.equal(row, kept)
    assert len({tensor.data_ptr() for tensor in held}) == 3


def test_an_array_an_autograd_graph_and_a_detached_tensor_hold_it_too():
    buffers = Buffers()
    array = buffers((4,)).fill_(1.0).numpy()
    weight = torch.ones(4, requires_grad=True)
    loss = (buffers((4,)).fill_(2.0) * weight).sum()
    other = buffers((4,)).fill_(3.0).detach()
    for _ in range(3):
        buffers((4,)).fill_(9.0)
    loss.backward()
    assert weight.grad is not None
    assert (array.tolist(), weight.grad.tolist(), other.tolist()) == ([1.0] * 4, [2.0] * 4, [3.0] * 4)


def test_a_smaller_batch_fits_and_a_larger_one_replaces_what_lies_idle():
    buffers = Buffers()
    place = buffers((8, 2)).data_ptr()
    assert buffers((3, 2)).data_ptr() == place
    assert buffers((9, 2)).shape == (9, 2)
    assert len(buffers) == 1


def test_copies_hold_no_memory():
    buffers = Buffers()
    buffers((1000,))
    assert len(copy.deepcopy(buffers)) == 0
    assert len(pickle.dumps(buffers)) < 500


def test_views_that_are_kept_stay_as_they_were():
    images = torch.randint(256, (6, 3, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    augment = BatchAugment(
        [{"crop_size": 8, "num_crops": 2, "rrc": {"enabled": True, "crop_min_scale": 0.2, "crop_max_scale": 1.0}}],
        (0.5,) * 3,
        (0.25,) * 3,
    )
    first = augment(images, torch.arange(6))
    copies = [view.clone() for view in first]
    for start in range(10, 40, 10):
        augment(images, torch.arange(start, start + 6))
    assert all(map(torch.equal, first, copies))
    assert all(map(torch.equal, augment(images, torch.arange(6)), copies))
