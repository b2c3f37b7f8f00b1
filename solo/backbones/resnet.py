"""Convolutional networks: torchvision's ResNets, smaller ones for experiments on a CPU, and wide ones.

He, Zhang, Ren, Sun: Deep residual learning for image recognition, https://arxiv.org/abs/1512.03385.
Zagoruyko, Komodakis: Wide residual networks, https://arxiv.org/abs/1605.07146; details (LeakyReLU, slow batch
statistics, where the shortcut starts) as in Oliver et al., https://arxiv.org/abs/1804.09170.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet


class ResNet10(ResNet):  # type: ignore[misc]  # torchvision has no types
    """A ResNet of torchvision's parts: one basic block in each of the four stages, `8 * width` features.

    The stem and the first stage have `width` channels, each further stage twice as many. `stem_stride` is that of the
    stem for small images (see `adapt_stem`); 2 makes the network four times cheaper. The kwargs are torchvision's.
    """

    def __init__(self, width: int = 64, stem_stride: int = 1, **kwargs: Any) -> None:
        super().__init__(BasicBlock, [1, 1, 1, 1], **kwargs)
        self.stem_stride = stem_stride
        if width == 64:
            return
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = self._norm_layer(width)
        self.layer1 = self._make_layer(BasicBlock, width, 1)
        self.layer2 = self._make_layer(BasicBlock, 2 * width, 1, stride=2)
        self.layer3 = self._make_layer(BasicBlock, 4 * width, 1, stride=2)
        self.layer4 = self._make_layer(BasicBlock, 8 * width, 1, stride=2)
        self.fc = nn.Linear(8 * width, kwargs.get("num_classes", 1000))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class Conv3(nn.Module):
    """Three 3x3 convolutions of stride 2 with BatchNorm and ReLU, then means over the quarters of the picture.

    It takes a third of the smallest ResNet's time. `width` channels, then 2 and 4 times as many; `16 * width` features.
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


_norm = partial(nn.BatchNorm2d, momentum=0.001, eps=0.001)
_act = partial(nn.LeakyReLU, 0.1)


class WideResNet(nn.Module):
    """A pre-activation ResNet of 28 layers for small images, `64 * width` features.

    `width` is the factor of the channels of the three blocks (16, 32, 64), `first_stride` that of the first block (the
    two others have 2), `drop_rate` the dropout between the convolutions of a layer.
    """

    def __init__(self, width: int, first_stride: int = 1, drop_rate: float = 0.0, in_chans: int = 3) -> None:
        super().__init__()
        self.num_features = 64 * width
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1)
        self.block1 = _wide_block(16, 16 * width, first_stride, drop_rate, shortcut_after_act=True)
        self.block2 = _wide_block(16 * width, 32 * width, 2, drop_rate)
        self.block3 = _wide_block(32 * width, 64 * width, 2, drop_rate)
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


class _WideLayer(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, drop_rate: float, shortcut_after_act: bool) -> None:
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


def _wide_block(
    inputs: int, outputs: int, stride: int, drop_rate: float, shortcut_after_act: bool = False
) -> nn.Sequential:
    first = _WideLayer(inputs, outputs, stride, drop_rate, shortcut_after_act)
    others = [_WideLayer(outputs, outputs, 1, drop_rate, False) for _ in range(3)]
    return nn.Sequential(OrderedDict(layer=nn.Sequential(first, *others)))


def constructed(build: Callable[..., nn.Module], method: str | None, *args: Any, **kwargs: Any) -> nn.Module:
    """A backbone as all constructors make one: every `method` gets the same, the rest is `build`'s."""
    return build(*args, **kwargs)


conv3 = partial(constructed, Conv3)
resnet10 = partial(constructed, ResNet10)
# torchvision's, 512 and 2048 features; `fc` is the caller's to replace.
resnet18 = partial(constructed, torchvision.models.resnet18)
resnet50 = partial(constructed, torchvision.models.resnet50)
wide_resnet28w2 = partial(constructed, partial(WideResNet, 2))
wide_resnet28w8 = partial(constructed, partial(WideResNet, 8))


def adapt_stem(backbone: nn.Module, name: str, channels: int = 3, small: bool = False) -> nn.Module:
    """Fit the first layer of a network whose registry name starts with "resnet" to the images, in place.

    Small images (CIFAR, digits, ...) keep their resolution: a 3x3 convolution with stride 1 and no pooling. Its padding
    is 2 (32x32 gives 34x34) because solo-learn's weights and numbers depend on it.
    """
    conv = getattr(backbone, "conv1", None)
    if not name.startswith("resnet") or not isinstance(conv, nn.Conv2d):
        return backbone
    if small:
        stride = getattr(backbone, "stem_stride", 1)
        backbone.conv1 = nn.Conv2d(channels, conv.out_channels, kernel_size=3, stride=stride, padding=2, bias=False)
        backbone.maxpool = nn.Identity()
    elif channels != conv.in_channels:
        shape: dict[str, Any] = {name: getattr(conv, name) for name in ("kernel_size", "stride", "padding")}
        backbone.conv1 = nn.Conv2d(channels, conv.out_channels, **shape, bias=conv.bias is not None)
    return backbone
