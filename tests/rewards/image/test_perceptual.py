"""MSE, SSIM and LPIPS against loops over single pixels."""

import math

import torch
from torch import nn

from motet.rewards.image.perceptual import lpips, mse, ssim


def naive_ssim(a, b):
    """One channel, two dimensions of floats: the formula window by window."""
    bell = [math.exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(11)]
    norm = sum(x * y for x in bell for y in bell)
    values = []
    for top in range(len(a) - 10):
        for left in range(len(a[0]) - 10):
            cells = [(bell[i] * bell[j] / norm, a[top + i][left + j], b[top + i][left + j])
                     for i in range(11) for j in range(11)]  # fmt: skip
            mean_a, mean_b = sum(w * x for w, x, _ in cells), sum(w * y for w, _, y in cells)
            var_a = sum(w * (x - mean_a) ** 2 for w, x, _ in cells)
            var_b = sum(w * (y - mean_b) ** 2 for w, _, y in cells)
            cov = sum(w * (x - mean_a) * (y - mean_b) for w, x, y in cells)
            values.append(
                (2 * mean_a * mean_b + 1e-4) * (2 * cov + 9e-4)
                / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
            )  # fmt: skip
    return sum(values) / len(values)


def images():
    torch.manual_seed(1)
    a = torch.rand(2, 3, 13, 14)
    return a, (0.8 * a + 0.3 * torch.rand_like(a)).clamp(0, 1)


def test_ssim_equals_the_formula_window_by_window():
    a, b = images()
    wanted = [sum(naive_ssim(x.tolist(), y.tolist()) for x, y in zip(p, q, strict=True)) / 3
              for p, q in zip(a, b, strict=True)]  # fmt: skip
    torch.testing.assert_close(ssim(a, b), torch.tensor(wanted), atol=2e-5, rtol=0)
    torch.testing.assert_close(ssim(a, a), torch.ones(2), atol=1e-5, rtol=0)


def test_mse_by_hand():
    a = torch.tensor([[[[0.0, 1.0]]], [[[0.5, 0.5]]]])
    b = torch.tensor([[[[1.0, 1.0]]], [[[0.5, 0.0]]]])
    torch.testing.assert_close(mse(a, b), torch.tensor([0.5, 0.125]))


def naive_lpips(first, second, weights):
    total = 0.0
    for a, b, w in zip(first, second, weights, strict=True):
        channels, height, width = a.shape
        layer = 0.0
        for y in range(height):
            for x in range(width):
                u, v = a[:, y, x].tolist(), b[:, y, x].tolist()
                length_u, length_v = math.sqrt(sum(i * i for i in u)), math.sqrt(sum(i * i for i in v))
                layer += sum(w[c].item() * (u[c] / length_u - v[c] / length_v) ** 2 for c in range(channels))
        total += layer / (height * width)
    return total


def test_lpips_equals_the_formula_on_a_small_backbone():
    torch.manual_seed(2)
    layers = [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3, stride=2)]
    weights = [torch.rand(4), torch.rand(5)]
    a, b = images()
    with torch.no_grad():
        maps = []
        for x in (a, b):
            shallow = layers[0](x)
            maps.append([shallow, layers[1](shallow.tanh())])
    found = lpips(*maps, weights)
    wanted = [naive_lpips([m[n] for m in maps[0]], [m[n] for m in maps[1]], weights) for n in range(2)]
    torch.testing.assert_close(found, torch.tensor(wanted))
    assert (found > 0.01).all() and lpips(maps[0], maps[0], weights).tolist() == [0.0, 0.0]


def test_a_position_without_activation_is_not_nan():
    dead, alive = torch.zeros(1, 2, 1, 1), torch.tensor([[[[3.0]], [[4.0]]]])
    torch.testing.assert_close(lpips([dead], [alive], [torch.tensor([1.0, 2.0])]), torch.tensor([0.36 + 2 * 0.64]))
    assert lpips([dead], [dead], [torch.ones(2)]).item() == 0.0
