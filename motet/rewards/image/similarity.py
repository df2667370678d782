"""Similarity of two images in [0, 1]: 1 - LPIPS, 1 - MSE, or SSIM; computed on the device in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from motet.core.errors import ConfigError
from motet.core.registry import first_line
from motet.rewards.image.efficientnet import open_efficientnet, weights_file
from motet.rewards.image.perceptual import WINDOW, lpips, mse, ssim
from motet.rewards.image.pixels import in_batches, to_pixels, unique_by_identity
from motet.rewards.models import freeze_model, load_model, load_processor
from motet.rewards.options import check_choice, check_int, check_non_empty, raise_option_error

VISUAL = ("lpips", "mse", "ssim")
EFFICIENTNET = "efficientnet_lite0"
"""The backbone that comes with its weights, by name; other backbones are paths."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's statistics, which LPIPS' scaling layer and vision backbones share."""

Pixels = Float[Tensor, "B 3 S S"]
Distance = Callable[[Pixels, Pixels], Float[Tensor, "B"]]


@dataclass(frozen=True, eq=False)
class BackboneLpips:
    """LPIPS by its formula over any backbone: `features` maps pixels in [0, 1] to maps `[B, C, H, W]`, one per layer.

    `weights` are the linear weights `[C]` per layer. None: `1 / (2 L)` everywhere, so that the distance is the mean
    over layers and places of `1 - cosine`: in [0, 1] for features after a ReLU, else in [0, 2]. This is not a
    calibrated LPIPS.
    """

    features: Callable[[Pixels], Sequence[Tensor]]
    weights: Sequence[Tensor] | None = None

    def __call__(self, first: Pixels, second: Pixels) -> Float[Tensor, "B"]:
        a, b = self.features(first), self.features(second)
        weights = self.weights
        if weights is None:
            weights = [layer.new_full((layer.shape[1],), 0.5 / len(a)) for layer in a]
        return lpips(a, b, weights)


@dataclass(frozen=True, eq=False)
class ImageSimilarity:
    """The visual term: `distance` of pixels in [0, 1], resized to `side` x `side`, `batch_size` pairs at a time."""

    distance: Distance
    side: int
    batch_size: int
    device: torch.device

    @torch.no_grad()
    def __call__(self, real: Sequence[Image.Image], generated: Sequence[Image.Image]) -> list[float]:
        """`1 - distance` of each pair, clipped to [0, 1]. A real image that several pairs share is resized once."""
        return in_batches(list(zip(real, generated, strict=True)), self.batch_size, self._batch)

    def _batch(self, pairs: Sequence[tuple[Image.Image, Image.Image]]) -> list[float]:
        real, place = unique_by_identity([pair[0] for pair in pairs])
        wanted = to_pixels(real, self.side, self.device)[torch.tensor(place, device=self.device)]
        generated = to_pixels([pair[1] for pair in pairs], self.side, self.device)
        return (1 - self.distance(wanted, generated)).clamp(0, 1).tolist()


def check_visual(reward: str, visual: Any, backbone: Any, backbone_weights: Any, side: Any) -> None:
    """Options of the visual term. Raises ConfigError."""
    check_choice(reward, "visual", visual, (*VISUAL, "none"))
    check_int(reward, "side", side, WINDOW)
    if backbone is not None:
        check_non_empty(reward, "backbone", backbone, "path of a vision backbone")
    if backbone_weights is not None:
        check_non_empty(reward, "backbone_weights", backbone_weights, "path of a .safetensors file")
        if backbone is None:
            raise_option_error(
                reward, "backbone_weights", backbone_weights, "is set without a backbone", fix="set backbone too."
            )
    if visual == "lpips" and backbone == EFFICIENTNET:
        weights_file(f"rewards.options.backbone={backbone!r} of {reward!r}")
    if visual == "lpips" and backbone is None:
        for package in ("torchmetrics", "torchvision"):
            if find_spec(package) is None:
                raise ConfigError(
                    f"rewards.options.visual='lpips' of {reward!r} needs the package {package}, not installed.",
                    fix=f"set rewards.options.backbone to {EFFICIENTNET} or another vision backbone, or pip install "
                    "'motet[metrics]', or use visual: mse or ssim.",
                )


def open_distance(
    reward: str, visual: str, backbone: str | None, weights: str | None, device: torch.device
) -> Distance:
    """The distance that the options name. Raises ConfigError when a model cannot be loaded."""
    if visual == "mse":
        return mse
    if visual == "ssim":
        return lambda first, second: 1 - ssim(first, second)
    if backbone is None:
        return _torchmetrics_lpips(device)
    key = f"rewards.options.backbone of {reward!r}"
    if backbone == EFFICIENTNET:
        model = features = open_efficientnet(key, device)
    else:
        model = _open_backbone(backbone, device, key=key)
        features = partial(_feature_maps, model)
    per_layer = None if weights is None else _read_weights(reward, weights, model.channels, device)
    return BackboneLpips(features, per_layer)


def _feature_maps(model: Any, pixels: Pixels) -> Sequence[Tensor]:
    return model(_normalised(pixels)).feature_maps


def _open_backbone(path: str, device: torch.device, *, key: str) -> Any:
    """A vision backbone of transformers (ResNet, ConvNeXt, Swin, DINOv2, ...) with the feature maps of all its stages.

    Not through AutoBackbone, whose `from_pretrained` asks the hub about every path and so rejects folders.
    """
    from transformers import MODEL_FOR_BACKBONE_MAPPING, AutoConfig

    config = load_processor(AutoConfig, path, key=key)
    if type(config) not in MODEL_FOR_BACKBONE_MAPPING:
        raise ConfigError(
            f"{key}={path!r} is a {config.model_type!r} model, which is not a vision backbone.",
            fix="give a model with feature maps: a ResNet, ConvNeXt, Swin or DINOv2, for example.",
        )
    return load_model(
        MODEL_FOR_BACKBONE_MAPPING[type(config)], path, device, key=key, out_features=config.stage_names[1:]
    )


def _torchmetrics_lpips(device: torch.device) -> Distance:
    """LPIPS with VGG and the published weights, which torchmetrics ships and torchvision downloads.

    torchmetrics' metric averages over batches; its network returns one value per pair.
    """
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity  # type: ignore[import-not-found]

    network: Any = freeze_model(LearnedPerceptualImagePatchSimilarity(net_type="vgg").net, device)
    return lambda first, second: network(first, second, normalize=True).flatten()


def _read_weights(reward: str, path: str, channels: Sequence[int], device: torch.device) -> list[Tensor]:
    """Linear weights `[C]` per layer from a safetensors file with keys 0, 1, ... Raises ConfigError."""
    from safetensors.torch import load_file

    try:
        stored = load_file(path)
    except Exception as error:  # safetensors has errors of its own for a broken file
        raise_option_error(
            reward, "backbone_weights", path, f"cannot be read: {first_line(error)}", fix="give a safetensors file."
        )
    wanted = {str(n): (width,) for n, width in enumerate(channels)}
    shapes = {name: tuple(weight.shape) for name, weight in stored.items()}
    if shapes != wanted:
        raise_option_error(
            reward,
            "backbone_weights",
            path,
            f"holds {shapes}, expected {wanted}",
            fix="store one vector per feature map under the keys 0, 1, ...",
        )
    return [stored[name].to(device, torch.float32) for name in wanted]


def _normalised(pixels: Pixels) -> Pixels:
    mean, std = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    return (pixels - mean) / std
