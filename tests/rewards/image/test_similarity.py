"""The visual term: which distance, of which pixels, and LPIPS over a small backbone that was saved and loaded."""

import sys
import types

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from motet.core.errors import ConfigError
from motet.rewards.image import similarity as visual
from motet.rewards.image.perceptual import mse, ssim
from motet.rewards.image.pixels import to_pixels
from motet.rewards.image.similarity import ImageSimilarity, check_visual, open_distance
from tests.rewards.judges import image, save_resnet

CPU = torch.device("cpu")
REAL = [image("red"), image("blue", (12, 12)), image("green")]
DRAWN = [image("red", (16, 16)), image("green", (16, 16)), image((90, 10, 200), (16, 16))]


def test_pixels_are_squashed_to_the_side():
    pixels = to_pixels([Image.new("L", (3, 5), 51), image("blue", (12, 12))], 12, CPU)
    assert pixels.shape == (2, 3, 12, 12) and torch.allclose(pixels[0], torch.tensor(0.2))
    assert pixels[1, :, 11, 0].tolist() == [0.0, 0.0, 1.0] and pixels[1, :, 0, 0].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("name", "distance"), [("mse", mse), ("ssim", lambda a, b: 1 - ssim(a, b))])
def test_similarity_is_one_minus_the_distance(name, distance):
    wanted = 1 - distance(to_pixels(REAL, 16, CPU), to_pixels(DRAWN, 16, CPU))
    found = ImageSimilarity(open_distance("cycle", name, None, None, CPU), 16, 2, CPU)(REAL, DRAWN)
    assert found == pytest.approx(wanted.clamp(0, 1).tolist(), abs=1e-6)
    assert len({round(value, 3) for value in found}) == 3


def test_a_shared_real_image_is_resized_once(monkeypatch):
    resized = []
    monkeypatch.setattr(visual, "to_pixels", lambda p, s, d: resized.append(len(p)) or to_pixels(p, s, d))
    likeness = ImageSimilarity(mse, 16, 8, CPU)
    shared = likeness([REAL[0]] * 3, DRAWN)
    assert resized == [1, 3]
    assert shared == [likeness([REAL[0]], [one])[0] for one in DRAWN]


def test_lpips_over_a_loaded_backbone_equals_the_formula(tmp_path):
    from transformers import ResNetBackbone

    folder, weights = save_resnet(tmp_path)
    distance = open_distance("cycle", "lpips", str(folder), str(weights), CPU)
    model, linear = ResNetBackbone.from_pretrained(folder).eval(), load_file(weights)
    a, b = to_pixels(REAL, 32, CPU), to_pixels(DRAWN, 32, CPU)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    wanted = []
    with torch.no_grad():
        for x, y in zip(a, b, strict=True):
            maps = [model(((p.permute(1, 2, 0) - mean) / std).permute(2, 0, 1)[None]).feature_maps for p in (x, y)]
            total = 0.0
            for layer in range(2):
                u, v = maps[0][layer][0], maps[1][layer][0]
                places = [(i, j) for i in range(u.shape[1]) for j in range(u.shape[2])]
                for i, j in places:
                    left, right = F.normalize(u[:, i, j], dim=0), F.normalize(v[:, i, j], dim=0)
                    total += float((linear[str(layer)] * (left - right) ** 2).sum()) / len(places)
            wanted.append(total)
        torch.testing.assert_close(distance(a, b), torch.tensor(wanted))
    assert max(wanted) > 0.1


def test_lpips_without_weights_is_a_mean_over_layers(tmp_path):
    folder, _ = save_resnet(tmp_path)
    likeness = ImageSimilarity(open_distance("cycle", "lpips", str(folder), None, CPU), 32, 4, CPU)
    assert likeness(REAL, REAL) == pytest.approx([1.0] * 3)
    found = likeness(REAL, DRAWN)
    assert all(0 < value < 1 for value in found)
    first = open_distance("cycle", "lpips", str(folder), None, CPU)
    a, b = (first.features(to_pixels(p, 32, CPU)) for p in (REAL, DRAWN))
    halves = [0.5 * (F.normalize(x, dim=1) - F.normalize(y, dim=1)).square().sum(1) for x, y in zip(a, b, strict=True)]
    assert found == pytest.approx((1 - sum(h.flatten(1).mean(1) for h in halves) / 2).tolist(), abs=1e-5)


def test_torchmetrics_is_asked_for_one_number_per_pair(monkeypatch):
    """Its class cannot be made here, because torchvision is absent: one of its shape stands in."""

    class Network(torch.nn.Module):
        def forward(self, first, second, normalize=False):
            assert normalize and first.min() >= 0
            return (first - second).abs().mean(dim=(1, 2, 3), keepdim=True)

    class Metric:
        def __init__(self, net_type):
            assert net_type == "vgg"
            self.net = Network()

    module = types.ModuleType("torchmetrics.image.lpip")
    module.LearnedPerceptualImagePatchSimilarity = Metric
    for name in ("torchmetrics", "torchmetrics.image"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    distance = open_distance("cycle", "lpips", None, None, CPU)
    a, b = to_pixels(REAL, 16, CPU), to_pixels(DRAWN, 16, CPU)
    torch.testing.assert_close(distance(a, b), (a - b).abs().mean(dim=(1, 2, 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("lpisp", None, None, 224), r"visual='lpisp' of 'cycle' must be one of.*mean 'lpips'"),
        (("mse", None, None, 10), "side=10 of 'cycle' is not a whole number of at least 11"),
        (("lpips", " ", None, 224), "backbone=' ' of 'cycle' is not a path"),
        (("mse", None, "w.safetensors", 224), "is set without a backbone"),
    ],
)
def test_wrong_options_raise(options, message):
    with pytest.raises(ConfigError, match=message):
        check_visual("cycle", *options)


def test_lpips_without_its_packages_raises_at_load(monkeypatch):
    monkeypatch.setattr(visual, "find_spec", lambda name: None if name == "torchvision" else object())
    with pytest.raises(ConfigError, match=r"needs the package torchvision.*pip install 'motet\[metrics\]'"):
        check_visual("cycle", "lpips", None, None, 224)


def test_wrong_weights_raise(tmp_path):
    folder, _ = save_resnet(tmp_path)
    save_file({"0": torch.rand(6), "1": torch.rand(9)}, tmp_path / "wrong.safetensors")
    with pytest.raises(ConfigError, match=r"holds .*'1': \(9,\).*expected .*'1': \(8,\)"):
        open_distance("cycle", "lpips", str(folder), str(tmp_path / "wrong.safetensors"), CPU)
    (tmp_path / "none.safetensors").write_bytes(b"x")
    with pytest.raises(ConfigError, match="cannot be read"):
        open_distance("cycle", "lpips", str(folder), str(tmp_path / "none.safetensors"), CPU)
