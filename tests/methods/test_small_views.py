"""Multi-crop: each method uses small views or refuses them in one line, before it trains."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from solo.errors import UserError
from solo.methods import METHODS
from solo.methods.catalogue import CATALOGUE


@pytest.mark.fault(
    3, "views of two sizes with each of the methods", "taken as in the method's paper, or refused in one line"
)
@pytest.mark.parametrize("method", CATALOGUE)
def test_small_views_count_or_are_refused(method: str, make_cfg: Any, make_batch: Any) -> None:
    patches = {"backbone__kwargs__patch_size": 3} if CATALOGUE[method].masked else {}  # of small views, too
    cfg = make_cfg(method, data__num_large_crops=2, data__num_small_crops=2, **patches)
    if not CATALOGUE[method].small_views:
        with pytest.raises(UserError, match=f"make 2 small views, which {method} doesn't use; give all") as error:
            METHODS[method](cfg)
        assert "\n" not in str(error.value)
        return
    model = METHODS[method](cfg)
    if hasattr(model, "assignments"):
        model.assignments = torch.stack([torch.arange(8) % 6, torch.arange(8) % 3])
    state = {key: value.clone() for key, value in model.state_dict().items()}
    losses = []
    for seed in (1, 2):  # the same large views, other small ones
        batch = make_batch(small=2)
        batch[1][2:] = make_batch(small=2, seed=seed)[1][2:]
        model.load_state_dict(state)
        torch.manual_seed(0)
        out = model.view_outputs(batch)
        assert len(out["feats"]) == 4
        loss = model.ssl_loss(out, model.step_of(batch))
        loss.backward()
        losses.append(loss.item())
    assert math.isfinite(losses[0]) and losses[0] != losses[1]


@pytest.mark.fault(3, "three large views, one, or none", "each method says what it can compare")
@pytest.mark.parametrize(
    ("method", "large", "line"),
    [
        ("barlow_twins", 3, "barlow_twins compares 2"),
        ("simclr", 1, "simclr compares at least 2"),
        ("mae", 0, "at least 1"),
    ],
)
def test_numbers_of_large_views(method: str, large: int, line: str, make_cfg: Any) -> None:
    with pytest.raises(UserError, match=line):
        METHODS[method](make_cfg(method, data__num_large_crops=large, data__num_small_crops=0))


@pytest.mark.parametrize("method", [m for m, facts in CATALOGUE.items() if facts.most_views is None])
def test_three_large_views(method: str, make_cfg: Any, make_batch: Any) -> None:
    model = METHODS[method](make_cfg(method, data__num_large_crops=3, data__num_small_crops=0))
    assert torch.isfinite(model.training_step(make_batch(views=3), 0))
