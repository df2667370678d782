"""Keyed noise: the same for a key in any batch, longer draws extend shorter ones, and enough bits to draw any token."""

from __future__ import annotations

import pytest
import torch

from motet.core.conversation import user
from motet.core.protocols import Request
from motet.core.trajectory import Sampling
from motet.policies.generation import sampling as sampling_module
from motet.policies.generation.noise import action_uniforms, uniforms

KEYS = [(0, 1, 2, 3), (0, 1, 2, 4), (7, 1, 2, 3)]
CPU = torch.device("cpu")


def test_action_uniforms_are_keyed_and_extend() -> None:
    whole = action_uniforms(KEYS, 40, CPU)
    assert torch.equal(action_uniforms(KEYS[::-1], 17, CPU), whole.flip(0)[:, :17])
    assert len(whole.unique()) == whole.numel()
    assert action_uniforms([], 3, CPU).shape == (0, 3)


def test_action_uniforms_have_53_bits() -> None:
    drawn = action_uniforms(KEYS, 2000, CPU)
    scaled = drawn * 2.0**53
    assert torch.equal(scaled, scaled.round()) and bool((drawn < 1).all())
    assert 0.4 < float((scaled % 2).mean()) < 0.6  # the last bit is random; in float32 it is always 0
    assert float((uniforms(KEYS, 2000).double() * 2.0**24 % 1).max()) == 0


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_janus_samples_with_them(kind, policy, monkeypatch) -> None:
    assert _noise_of(policy, kind, sampling_module, "decode", monkeypatch) == [torch.float64]


def test_a_qwen_vl_samples_with_them(vlm, monkeypatch) -> None:
    assert _noise_of(vlm, "text", sampling_module, "generate_from_state", monkeypatch) == [torch.float64]


def _noise_of(policy, kind, module, name, monkeypatch) -> list[torch.dtype]:
    """The types of the uniforms that one act hands to the decode loop."""
    inner, seen = getattr(module, name), []

    def watched(*arguments, uniforms, **settings):
        seen.append(uniforms.dtype)
        return inner(*arguments, uniforms=uniforms, **settings)

    monkeypatch.setattr(module, name, watched)
    policy.act([Request(kind, "x", user("two red circles"), KEYS[0])], Sampling(max_tokens=3))
    return seen
