from __future__ import annotations

import math

import pytest
import torch

from solo.nn import vit as encodings


def reference(place: int, channel: int, channels: int) -> float:
    """Sine and cosine in turn, of `channels` (even) frequencies."""
    angle = place / 10000 ** ((channel - channel % 2) / channels)
    return math.cos(angle) if channel % 2 else math.sin(angle)


@pytest.mark.parametrize("channels", [5, 6])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_against_loops_and_the_permuted_form(dims: int, channels: int) -> None:
    sizes = (4, 3, 2)[:dims]
    share = 2 * math.ceil(channels / (2 * dims))
    tensor = torch.zeros(2, *sizes, channels)
    encoding = getattr(encodings, f"PositionalEncoding{dims}D")(channels)(tensor)
    assert encoding.shape == tensor.shape
    for place in torch.ones(sizes).nonzero().tolist():
        for channel in range(channels):
            expected = reference(place[channel // share], channel % share, share)
            assert encoding[(1, *place, channel)].item() == pytest.approx(expected, abs=1e-6)
    permuted = getattr(encodings, f"PositionalEncodingPermute{dims}D")(channels)(tensor.movedim(-1, 1))
    assert torch.equal(permuted, encoding.movedim(-1, 1))


def test_summer_adds_and_refuses_other_channels() -> None:
    tensor = torch.randn(2, 4, 6)
    encoding = encodings.PositionalEncoding1D(6)
    assert torch.equal(encodings.Summer(encoding)(tensor), tensor + encoding(tensor))
    with pytest.raises(ValueError, match=r"\(2, 4, 6\).*\(2, 4, 5\)"):
        encodings.Summer(encoding)(tensor[..., :5])
    with pytest.raises(ValueError, match="expected a tensor of 3 dimensions"):
        encoding(tensor[0])
