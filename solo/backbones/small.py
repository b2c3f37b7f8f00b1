"""Three convolutions, for experiments on a CPU: a third of the time of the smallest ResNet, and better neighbours."""

from typing import Any

from torch import Tensor, nn


class Conv3(nn.Module):
    """Three 3x3 convolutions of stride 2 with BatchNorm and ReLU, then means over the quarters of the picture.

    Args:
        width: channels of the first convolution, twice as many in each further one; `16 * width` features.
        in_chans: channels of the images.
    """

    def __init__(self, width: int = 32, in_chans: int = 3) -> None:
        super().__init__()
        channels = [in_chans, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for inputs, outputs in zip(channels, channels[1:], strict=False):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.num_features = 16 * width

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) -> features (N, 16 * width)."""
        features: Tensor = self.layers(x)
        return features


def conv3(method: str | None, *args: Any, **kwargs: Any) -> nn.Module:
    """Build a `Conv3`, the same for every method."""
    return Conv3(*args, **kwargs)
