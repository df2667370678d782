"""The names that transformers changed: each call works with the old and with the new one, and warns of nothing."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from motet.policies.versions import enable_activation_checkpointing, read_with_cache


class Old:
    def forward(self, inputs_embeds: Any, past_key_values: Any = None, use_cache: bool = False) -> Any:
        return past_key_values, use_cache

    __call__ = forward


class New:
    def forward(self, inputs_embeds: Any, cache: Any = None, use_cache: bool = False) -> Any:
        return cache, use_cache

    __call__ = forward


@pytest.mark.parametrize("language", [Old(), New()])
def test_the_cache_goes_under_the_name_that_the_model_knows(language):
    cache = DynamicCache()
    assert read_with_cache(language, cache, inputs_embeds=None) == (cache, True)


def test_reading_a_janus_with_a_cache_warns_of_nothing(policy):
    _read_in_two(policy.model.model.language_model)


def test_reading_a_qwen_vl_with_a_cache_warns_of_nothing(vlm):
    _read_in_two(vlm.model.model.language_model)


def _read_in_two(language: Any) -> None:
    """Two calls over one cache equal one call without, in silence."""
    cache, vectors = DynamicCache(), language.embed_tokens(torch.tensor([[5, 6, 7]]))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = language(inputs_embeds=vectors, use_cache=False).last_hidden_state
        read_with_cache(language, cache, inputs_embeds=vectors[:, :2])
        last = read_with_cache(language, cache, inputs_embeds=vectors[:, 2:]).last_hidden_state
    assert cache.get_seq_length() == 3
    torch.testing.assert_close(last, whole[:, 2:], rtol=1e-4, atol=1e-5)


def test_recomputing_activations_warns_of_nothing(fresh):
    language = fresh().model.model.language_model
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        enable_activation_checkpointing(language)
    assert all(layer.gradient_checkpointing for layer in language.layers)
