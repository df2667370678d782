"""Prefixes that several rows continue: with checkpointing the same numbers from less memory."""

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from motet.evaluation.live_memory import LiveMemory
from motet.policies.generation.adapter import EmbeddedPrompt
from motet.policies.generation.forward import prefill
from motet.policies.generation.replay import Branch, _plain_pass, _shared_pass
from motet.policies.generation.shared_prefix import checkpointing_with_cache
from motet.policies.trainable import enable_gradient_checkpointing

LAYERS, WIDTH = 4, 32


def language(recompute=False):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16, hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.2,
    )  # fmt: skip
    model = LlamaModel(config).eval()
    if recompute:
        enable_gradient_checkpointing(model)
    return model


def inputs(lengths=(9, 5), tail=6, rows=4):
    generator = torch.Generator().manual_seed(1)
    vectors = [torch.randn(n, WIDTH, generator=generator).requires_grad_() for n in lengths]
    prompts = [EmbeddedPrompt(own, len(own)) for own in vectors]
    branches = [
        Branch(prompt, torch.randn(tail - row, WIDTH, generator=generator), range(tail - row))
        for prompt in range(len(lengths))
        for row in range(rows)
    ]
    return vectors, prompts, branches


def run(do, model, **sizes):
    """Predicting hidden states, gradients of weights and prompts, and the memory of tensors between and at most."""
    vectors, prompts, branches = inputs(**sizes)
    with LiveMemory() as memory:
        states = do(model, prompts, branches)
        hidden = states.predicting(range(len(branches)), [len(b.predictors) + 1 for b in branches])
        kept = memory.live
        torch.autograd.backward(hidden.sin().sum())
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return hidden.detach(), [*gradients, *(v.grad for v in vectors)], kept, memory.peak


def test_recomputed_layers_give_the_same_hidden_states_and_gradients():
    plain, recomputed = run(_shared_pass, language()), run(_shared_pass, language(recompute=True))
    separate = run(_plain_pass, language())
    assert torch.equal(plain[0], recomputed[0])
    assert len(plain[1]) == len(recomputed[1]) > 9 * LAYERS
    for ours, other, apart in zip(plain[1], recomputed[1], separate[1], strict=True):
        torch.testing.assert_close(other, ours, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(apart, ours, rtol=1e-4, atol=3e-5)


def test_recomputed_layers_keep_less():
    sizes = {"lengths": (64, 48), "tail": 32, "rows": 6}
    plain, recomputed = run(_shared_pass, language(), **sizes), run(_shared_pass, language(recompute=True), **sizes)
    rows_recomputed = run(_plain_pass, language(recompute=True), **sizes)
    assert recomputed[2] < 0.25 * plain[2] and recomputed[3] < 0.5 * plain[3]
    assert recomputed[3] < rows_recomputed[3]  # prompts once, not once per row


def test_a_layer_runs_once_more_for_each_of_the_two_passes():
    model, calls = language(recompute=True), []
    model.layers[2].self_attn.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    run(_shared_pass, model)
    assert len(calls) == 4 and all("forward" not in vars(layer) for layer in model.layers)


@pytest.mark.parametrize("recompute", [False, True])
def test_under_autocast_keys_and_values_are_kept_in_its_type(recompute):
    model = language(recompute)
    for enabled, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled), checkpointing_with_cache(model):
            layers = prefill(model, inputs()[1]).cache.layers
        parts = [part for layer in layers for part in (layer.keys, layer.values)]
        assert {part.dtype for part in parts} == {dtype}
        assert all(part.is_contiguous() for part in parts)  # as in transformers' cache: other strides round otherwise


def test_the_type_of_keys_changes_no_number(monkeypatch):
    """Attention converts them all the same."""
    with torch.autocast("cpu", torch.bfloat16):
        kept = run(_shared_pass, language())
        monkeypatch.setattr("motet.policies.generation.shared_prefix._in_compute_type", lambda states: states)
        before = run(_shared_pass, language())
    assert torch.equal(kept[0], before[0])
