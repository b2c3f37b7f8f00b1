"""Wide ResNets of 28 layers for small images.

Zagoruyko, Komodakis: Wide residual networks, https://arxiv.org/abs/1605.07146; details (LeakyReLU, slow batch
statistics, where the shortcut starts) as in Oliver et al., https://arxiv.org/abs/1804.09170.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn

_norm = partial(nn.BatchNorm2d, momentum=0.001, eps=0.001)
_act = partial(nn.LeakyReLU, 0.1)


class WideResNet(nn.Module):
    """A pre-activation ResNet of 28 layers, `64 * width` features.

    Args:
        width: factor of the channels of the three blocks (16, 32, 64).
        first_stride: stride of the first block; the two others have 2.
        drop_rate: dropout between the convolutions of a layer.
        in_chans: channels of the images.
    """

    depth = 28

    def __init__(self, width: int, first_stride: int = 1, drop_rate: float = 0.0, in_chans: int = 3) -> None:
        super().__init__()
        layers = (self.depth - 4) // 6
        self.num_features = 64 * width
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1)
        self.block1 = _Block(layers, 16, 16 * width, first_stride, drop_rate, shortcut_after_act=True)
        self.block2 = _Block(layers, 16 * width, 32 * width, 2, drop_rate)
        self.block3 = _Block(layers, 32 * width, 64 * width, 2, drop_rate)
        self.bn1 = _norm(64 * width)
        self.act = _act()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) -> features (N, 64 * width)."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        feats: Tensor = self.act(self.bn1(x)).mean(dim=(2, 3))
        return feats


class _Block(nn.Module):
    def __init__(
        self, layers: int, inputs: int, outputs: int, stride: int, drop_rate: float, shortcut_after_act: bool = False
    ) -> None:
        super().__init__()
        first = _Layer(inputs, outputs, stride, drop_rate, shortcut_after_act)
        self.layer = nn.Sequential(first, *(_Layer(outputs, outputs, 1, drop_rate) for _ in range(layers - 1)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class _Layer(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, stride: int, drop_rate: float, shortcut_after_act: bool = False
    ) -> None:
        super().__init__()
        self.bn1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.bn2 = _norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.convShortcut = nn.Conv2d(inputs, outputs, 1, stride=stride) if inputs != outputs else None
        self.act = _act()
        self.drop = nn.Dropout(drop_rate)
        self.shortcut_after_act = shortcut_after_act

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.bn1(x))
        if self.shortcut_after_act:
            x = out
        out = self.drop(self.act(self.bn2(self.conv1(out))))
        sum_: Tensor = self.conv2(out) + (x if self.convShortcut is None else self.convShortcut(x))
        return sum_


def wide_resnet(width: int, method: str | None, *args: Any, **kwargs: Any) -> nn.Module:
    """WRN-28-`width`; the arguments are those of `WideResNet` after `width`, and `method` is not used."""
    return WideResNet(width, *args, **kwargs)


wide_resnet28w2 = partial(wide_resnet, 2)
wide_resnet28w8 = partial(wide_resnet, 8)
