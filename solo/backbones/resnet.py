"""ResNets with torchvision's parameter names.

He, Zhang, Ren, Sun: Deep residual learning for image recognition, https://arxiv.org/abs/1512.03385.
"""

from typing import Any

import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet


def resnet18(method: str | None, *args: Any, **kwargs: Any) -> nn.Module:
    """ResNet-18 of torchvision, 512 features; its `fc` is the caller's to replace."""
    net: nn.Module = torchvision.models.resnet18(*args, **kwargs)
    return net


def resnet50(method: str | None, *args: Any, **kwargs: Any) -> nn.Module:
    """ResNet-50 of torchvision, 2048 features; its `fc` is the caller's to replace."""
    net: nn.Module = torchvision.models.resnet50(*args, **kwargs)
    return net


def resnet10(method: str | None, *args: Any, **kwargs: Any) -> nn.Module:
    """A ResNet with one block a stage, small enough for a CPU: `8 * width` features; see `ResNet10`."""
    return ResNet10(*args, **kwargs)


class ResNet10(ResNet):  # type: ignore[misc]  # torchvision has no types
    """A torchvision ResNet with one basic block in each of the four stages and a free width.

    Args:
        width: channels of the stem and of the first stage; each further stage has twice as many.
        stem_stride: stride of the stem for small images (see `adapt_stem`); 2 makes the network four times cheaper.
        **kwargs: torchvision's (`num_classes`, `zero_init_residual`, `norm_layer`).
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
        like: Any = conv
        backbone.conv1 = nn.Conv2d(
            channels, like.out_channels, like.kernel_size, like.stride, like.padding, bias=like.bias is not None
        )
    return backbone
