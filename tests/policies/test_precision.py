"""Which compute type `auto` becomes: by the processor's own speed, for learning and sampling apart."""

from pathlib import Path

import pytest
import torch

from motet.config import PolicyConfig
from motet.policies import load_policy, precision
from motet.policies.precision import ComputeTypes, choose_compute_types, width_of

CPU = torch.device("cpu")
WIDE = 512


@pytest.fixture
def speeds(monkeypatch):
    """Sets how long bfloat16 takes, in units of float32: learning, sampling."""

    def set_ratios(learning: float, sampling: float) -> None:
        def ratio(width: int, rows: int, learns: bool) -> float:
            assert (rows == precision.LEARNING_ROWS) is learns
            return learning if learns else sampling

        monkeypatch.setattr(precision, "_cpu_ratio", ratio)

    return set_ratios


def chosen(width=WIDE, device=CPU, **settings) -> ComputeTypes:
    return choose_compute_types(PolicyConfig(path="x", **settings), device, width)


def test_a_processor_without_bfloat16_units_computes_in_float32(speeds):
    speeds(52.0, 6.0)
    types = chosen()
    assert (types.learning, types.sampling) == ("float32", "float32")
    assert "learning in float32: bfloat16 takes 52 times as long" in types.reason


def test_a_processor_with_bfloat16_units_uses_them_where_they_are_faster(speeds):
    speeds(0.2, 1.4)
    types = chosen()
    assert (types.learning, types.sampling) == ("bfloat16", "float32")
    assert "learning in bfloat16" in types.reason and "sampling in float32" in types.reason


def test_learning_and_sampling_are_chosen_apart(speeds):
    speeds(1.4, 0.2)
    types = chosen()
    assert (types.learning, types.sampling) == ("float32", "bfloat16")


def test_narrow_models_are_not_measured(monkeypatch):
    monkeypatch.setattr(precision, "_cpu_ratio", lambda *_: pytest.fail("measured"))
    types = chosen(width=128)
    assert (types.learning, types.sampling) == ("float32", "float32") and "128 features" in types.reason


def test_what_a_recipe_says_holds_and_a_slow_choice_is_told(speeds):
    speeds(52.0, 6.0)
    types = chosen(dtype="bfloat16", rollout_dtype="float32")
    assert (types.learning, types.sampling) == ("bfloat16", "float32")
    assert "as policy.dtype asks, though bfloat16 takes 52 times as long" in types.reason
    assert chosen(dtype="float32", rollout_dtype="float32").reason == ""


@pytest.mark.parametrize("units", [True, False])
def test_on_cuda_bfloat16_where_the_card_has_it(monkeypatch, units):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: units)
    types = chosen(device=torch.device("cuda"))
    assert (types.learning, types.sampling) == (("bfloat16",) * 2 if units else ("float32",) * 2)
    assert types.reason.startswith("On cuda: learning and sampling in ")
    forced = chosen(device=torch.device("cuda"), dtype="bfloat16")
    assert forced.sampling == "bfloat16"  # an accelerator samples as it learns


def test_the_measurement_is_of_both_types_and_leaves_random_numbers_alone():
    precision._cpu_ratio.cache_clear()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert 0 < precision._cpu_ratio(16, 8, True) < float("inf")
    assert torch.equal(torch.rand(1), expected)


def test_a_slow_first_call_ends_the_measurement():
    calls = []
    assert precision._seconds(lambda: calls.append(1), too_long=-1.0) >= 0 and len(calls) == 1
    precision._seconds(lambda: calls.append(1))
    assert len(calls) == 5


def test_the_width_is_that_of_the_widest_layers(tmp_path: Path, tiny_checkpoint):
    assert width_of(tiny_checkpoint) == 32
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text('{"num_attention_heads": 3, "attention_head_dim": 40}')
    (tmp_path / "config.json").write_text('{"text_config": {"hidden_size": 64}}')
    assert width_of(tmp_path) == 120
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    assert width_of(tmp_path) == 120
    assert width_of("owner/name") == precision.WIDEST


def test_a_policy_computes_in_what_was_chosen(speeds, monkeypatch, tiny_checkpoint):
    monkeypatch.setattr(precision, "NARROW", 1)
    speeds(0.2, 0.2)
    fast = load_policy(tiny_checkpoint, PolicyConfig(path=str(tiny_checkpoint), device="cpu"))
    assert fast.autocast == fast.rollout_autocast == torch.bfloat16
    fast.generate_images("a red circle")
    assert fast._sampler[1].language.dtype == torch.bfloat16
    speeds(0.2, 2.0)
    mixed = load_policy(tiny_checkpoint, PolicyConfig(path=str(tiny_checkpoint), device="cpu"))
    mixed.generate_images("a red circle")
    assert mixed._sampler[1].language.dtype == torch.float32 and mixed.autocast == torch.bfloat16
