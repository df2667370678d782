"""Merges of one tensor equal a naive float64 loop, and behave as documented in edge cases."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from motet.weights.merge_math import add_delta, average, delta, gaussian_deltas, gaussian_merge, norm_weighted

# --- the formulas, element by element


def naive_gaussian(base: list[float], a: list[float], b: list[float]) -> list[float]:
    deltas = [[x - w for x, w in zip(model, base, strict=True)] for model in (a, b)]
    means = [sum(d) / len(d) for d in deltas]
    stds = [
        math.sqrt(sum((x - mean) ** 2 for x in d) / (len(d) - 1)) if len(d) > 1 else 0.0
        for d, mean in zip(deltas, means, strict=True)
    ]
    low, high = sum(means) / 2 - 2 * min(stds), sum(means) / 2 + 2 * min(stds)
    merged = []
    for n, w in enumerate(base):
        for d in deltas:
            w += 0.5 * d[n] if low < d[n] < high else d[n]
        merged.append(w)
    return merged


def naive_norm_weighted(base: list[float], models: list[list[float]]) -> list[float]:
    deltas = [[x - w for x, w in zip(model, base, strict=True)] for model in models]
    scales = [1 / math.sqrt(sum(x * x for x in d)) for d in deltas]
    return [w + sum(s * d[n] for s, d in zip(scales, deltas, strict=True)) / sum(scales) for n, w in enumerate(base)]


def tensors(count: int, shape: tuple[int, ...], seed: int, scale: float = 0.01) -> list[Tensor]:
    """A base and models near it, with some outliers, in float64."""
    noise = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=noise, dtype=torch.float64)
    steps = [torch.randn(shape, generator=noise, dtype=torch.float64) ** 3 for _ in range(count)]
    return [base, *(base + scale * (k + 1) * step for k, step in enumerate(steps))]


SHAPES = st.sampled_from([(2,), (7,), (5, 3), (4, 3, 2), (40, 6)])


@given(SHAPES, st.integers(0, 10_000))
@settings(max_examples=25)
def test_gaussian_equals_the_naive_loop(shape: tuple[int, ...], seed: int) -> None:
    base, a, b = tensors(2, shape, seed)
    merged = gaussian_merge(base, a, b)
    assert merged.shape == base.shape
    assert merged.flatten().tolist() == pytest.approx(
        naive_gaussian(*(one.flatten().tolist() for one in (base, a, b))), abs=1e-12
    )


@given(SHAPES, st.integers(0, 10_000), st.integers(1, 4))
@settings(max_examples=25)
def test_norm_weighted_equals_the_naive_loop(shape: tuple[int, ...], seed: int, count: int) -> None:
    base, *models = tensors(count, shape, seed)
    expected = naive_norm_weighted(base.flatten().tolist(), [model.flatten().tolist() for model in models])
    assert norm_weighted(base, models).flatten().tolist() == pytest.approx(expected, abs=1e-12)


@given(SHAPES, st.integers(0, 10_000), st.lists(st.floats(0.1, 3.0), min_size=1, max_size=4))
@settings(max_examples=25)
def test_average_equals_the_naive_loop(shape: tuple[int, ...], seed: int, weights: list[float]) -> None:
    _, *models = tensors(len(weights), shape, seed)
    columns = zip(*(model.flatten().tolist() for model in models), strict=True)
    expected = [sum(w * x for w, x in zip(weights, column, strict=True)) / sum(weights) for column in columns]
    assert average(models, weights).flatten().tolist() == pytest.approx(expected, abs=1e-12)


# --- by hand


def test_gaussian_by_hand() -> None:
    # means 1 and 0, standard deviations 2 and 4: the band is (0.5 - 4, 0.5 + 4), which holds -1 and 3 and neither end
    base = torch.tensor([10.0, 10.0, 10.0])
    a, b = base + torch.tensor([-1.0, 1.0, 3.0]), base + torch.tensor([-4.0, 0.0, 4.0])
    merged, outlier_masks = gaussian_deltas(delta(base, a), delta(base, b))
    assert [one.tolist() for one in outlier_masks] == [[False, False, False], [True, False, False]]
    assert merged.tolist() == [-0.5 - 4.0, 0.5, 1.5 + 2.0]
    assert gaussian_merge(base, a, b).tolist() == [5.5, 10.5, 13.5]


def test_the_band_is_open() -> None:
    # constant deltas: the band around 0.25 has width zero and excludes its bounds
    same = torch.full((5,), 0.25)
    merged, outlier_masks = gaussian_deltas(same, same)
    assert all(one.all() for one in outlier_masks)
    assert merged.tolist() == [0.5] * 5


def test_average_by_hand() -> None:
    models = [torch.tensor([0.0, 4.0]), torch.tensor([1.0, 0.0]), torch.tensor([2.0, 2.0])]
    assert average(models).tolist() == [1.0, 2.0]
    assert average(models, [2.0, 0.0, 2.0]).tolist() == [1.0, 3.0]


def test_norm_weighted_by_hand() -> None:
    # norms 5 and 10: the sum of the two unit vectors, divided by 1/5 + 1/10
    base = torch.zeros(2, 1)
    merged = norm_weighted(base, [torch.tensor([[3.0], [4.0]]), torch.tensor([[0.0], [10.0]])])
    assert merged.flatten().tolist() == pytest.approx([0.6 / 0.3, 1.8 / 0.3])


# --- edge cases


def test_gaussian_takes_a_change_of_one_model_in_full() -> None:
    base, a, _ = tensors(2, (6, 5), 3)
    assert torch.equal(gaussian_merge(base, a, base.clone()), add_delta(base, delta(base, a)))
    assert torch.equal(gaussian_merge(base, base.clone(), a), add_delta(base, delta(base, a)))


def test_norm_weighted_keeps_a_tensor_that_one_model_did_not_change() -> None:
    base, a, b = tensors(2, (6, 5), 3)
    assert torch.equal(norm_weighted(base, [a, base.clone(), b]), base)
    nearby = norm_weighted(base, [a, base + 1e-9 * (b - base)])
    assert float((nearby - base).abs().max()) < 1e-8  # the base is the limit


def test_merging_unchanged_models_gives_the_base() -> None:
    base = torch.randn(4, 3)
    assert torch.equal(gaussian_merge(base, base.clone(), base.clone()), base)
    assert torch.equal(norm_weighted(base, [base.clone()]), base)
    assert torch.equal(average([base, base.clone()]), base)


def test_changes_of_one_element_are_summed() -> None:
    base, a, b = torch.tensor([1.0]), torch.tensor([1.5]), torch.tensor([3.0])
    assert gaussian_merge(base, a, b).tolist() == [3.5]
    assert gaussian_merge(base.squeeze(), a.squeeze(), b.squeeze()).item() == 3.5


def test_empty_tensors_merge() -> None:
    empty = torch.zeros(0, 4)
    assert gaussian_merge(empty, empty, empty).shape == (0, 4)
    assert norm_weighted(empty, [empty]).shape == (0, 4)


def test_tiny_norms_do_not_overflow() -> None:
    base = torch.zeros(3)
    merged = norm_weighted(base, [torch.full((3,), 1e-41), torch.full((3,), 2e-41)])
    assert merged.tolist() == pytest.approx([4e-41 / 3] * 3, rel=1e-2, abs=0)  # denormals have few digits


# --- types


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_result_has_the_dtype_of_the_base(dtype: torch.dtype) -> None:
    base, a, b = (one.to(dtype) for one in tensors(2, (9, 4), 1))
    assert gaussian_merge(base, a, b).dtype == dtype
    assert norm_weighted(base, [a, b]).dtype == dtype
    assert average([a, b]).dtype == dtype


def test_bfloat16_is_merged_in_float32() -> None:
    base, a, b = (one.bfloat16() for one in tensors(2, (50, 40), 1))
    float32 = [one.float() for one in (base, a, b)]
    assert torch.equal(gaussian_merge(base, a, b), gaussian_merge(*float32).bfloat16())
    assert torch.equal(norm_weighted(base, [a, b]), norm_weighted(float32[0], float32[1:]).bfloat16())
    assert torch.equal(average([a, b, base]), average([float32[1], float32[2], float32[0]]).bfloat16())


def test_float64_stays_float64() -> None:
    base = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    step = torch.tensor([1e-12, -1e-12, 0.0], dtype=torch.float64)
    assert torch.equal(average([base + step, base + step]), base + step)
    assert delta(base.float(), base + step).dtype == torch.float64
    assert delta(base.float(), base + step)[0] > 0


@pytest.mark.parametrize(
    "merge", [lambda t: gaussian_merge(t, t, t), lambda t: norm_weighted(t, [t]), lambda t: average([t])]
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_integers_are_rejected(merge, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="cannot be averaged"):
        merge(torch.ones(3, dtype=dtype))


def test_shapes_are_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"shapes differ: \(3,\) and \(1,\)"):
        gaussian_merge(torch.zeros(3), torch.zeros(3), torch.zeros(1))
    with pytest.raises(ValueError, match="shapes differ"):
        average([torch.zeros(3), torch.zeros(1, 3)])


@pytest.mark.parametrize(("count", "weights"), [(0, None), (2, [1.0]), (2, [0.0, 0.0]), (2, [1.0, -1.0])])
def test_weights_must_fit(count: int, weights: list[float] | None) -> None:
    with pytest.raises(ValueError, match="one weight each"):
        average([torch.zeros(2)] * count, weights)


def test_no_deltas_are_rejected() -> None:
    with pytest.raises(ValueError, match="no deltas"):
        norm_weighted(torch.zeros(2), [])
