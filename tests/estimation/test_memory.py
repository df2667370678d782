"""Memory by arithmetic is the memory of real tensors: weights, gradients, moments, activations, the sampler's copy."""

from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaModel
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextConfig, Qwen3VLTextModel

from motet.config import PolicyConfig
from motet.core.conversation import user
from motet.core.protocols import Request
from motet.core.sampling import Sampling
from motet.estimation.activations import TokenCounts, language_bytes, layer_bytes, logits_bytes
from motet.estimation.building import model_size
from motet.estimation.counting import kept_bytes
from motet.estimation.memory import Settings, cache_bytes, held_all_the_time, memory, replay_tokens, snapshot_bytes
from motet.estimation.model_size import LanguageSize, ModelSize, PartSize
from motet.estimation.workload import ActLoad
from motet.policies import load_policy
from motet.policies.generation.fused_forward import prefill
from motet.policies.generation.fused_weights import FusedLlama
from motet.policies.trainable import enable_gradient_checkpointing
from tests.runs import save_tiny_janus

SETTINGS = Settings(1, "replicas", "float32", "float32", 4096, None, False, False)
LOAD = ActLoad("", "answer", "text", 4, 8, 30, 0, 20, 20, 10.0)
B, T, D = 2, 50, 64


def decoder(kind: str, layers: int, kv_heads: int, attention: str):
    sizes = {
        "hidden_size": D, "intermediate_size": 160, "num_hidden_layers": layers, "num_attention_heads": 4,
        "num_key_value_heads": kv_heads, "vocab_size": 50, "attn_implementation": attention,
    }  # fmt: skip
    if kind == "llama":
        return LlamaModel(LlamaConfig(**sizes)).eval()
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return Qwen3VLTextModel(Qwen3VLTextConfig(**sizes, **ids, head_dim=16, rope_parameters=rope)).eval()


def size_of(model, attention: str, qk_norm: bool) -> LanguageSize:
    config = model.config
    return LanguageSize(
        config.num_hidden_layers, D, 4, config.num_key_value_heads, 16, 160, 50, 0,
        qk_norm=qk_norm, attention=attention,
    )  # fmt: skip


def kept(model, dtype: str) -> float:
    inputs = torch.randn(B, T, D, requires_grad=True)
    return kept_bytes(lambda: model(inputs_embeds=inputs, use_cache=False), model.parameters(), dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("kind", "kv_heads"), [("llama", 4), ("llama", 2), ("qwen3", 2)])
def test_a_layer_keeps_what_the_arithmetic_says(kind, kv_heads, attention, dtype) -> None:
    if torch.__version__.startswith("2.6.") and attention == "sdpa" and kv_heads < 4:
        pytest.skip("on a CPU, torch 2.6 computes attention with grouped keys without its fused kernel")
    one, two = (decoder(kind, layers, kv_heads, attention) for layers in (1, 2))
    size = size_of(two, "eager" if attention == "eager" else "flash", kind == "qwen3")
    casts = 2 * size.layer_products if dtype == "bfloat16" else 0
    expected = layer_bytes(size, dtype, TokenCounts.of_rows(B, T)) + casts
    assert kept(two, dtype) - kept(one, dtype) == expected


def test_checkpointing_keeps_inputs_of_layers() -> None:
    model = decoder("llama", 4, 4, "sdpa")
    size, tokens = size_of(model, "flash", False), TokenCounts.of_rows(B, T)
    enable_gradient_checkpointing(model)
    measured = kept(model, "float32")
    forward, backward = language_bytes(size, "float32", tokens, checkpointing=True)
    assert backward.activations - forward.activations == layer_bytes(size, "float32", tokens)
    assert forward.activations == pytest.approx(
        measured, rel=0.05
    )  # the rotary tables, which all layers share, are left out


def test_weights_gradients_and_moments_are_those_of_an_optimizer(tmp_path) -> None:
    path = str(save_tiny_janus(tmp_path / "janus"))
    size = model_size(PolicyConfig(path=path), "float32")
    policy = load_policy(path, PolicyConfig(path=path, device="cpu"))
    policy.freeze_reference()
    parameters = list(policy.trainable().values())
    adamw = torch.optim.AdamW(parameters)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    adamw.step()
    moments = [t for state in adamw.state.values() for name, t in state.items() if name != "step"]
    held = held_all_the_time(size, replace(SETTINGS, has_reference=True))
    trained = {id(p) for p in parameters}
    assert held["trainable weights"] == sum(p.nbytes for p in parameters)
    assert held["frozen weights"] == sum(p.nbytes for p in policy.model.parameters() if id(p) not in trained)
    assert held["AdamW moments"] == sum(t.nbytes for t in moments)
    assert held["reference"] == sum(t.nbytes for t in policy._reference.start.values())
    assert memory(size, [LOAD], SETTINGS).phases["learn"]["gradients"] == sum(p.grad.nbytes for p in parameters)


def test_the_cache_and_the_sampler_take_what_is_said(tmp_path) -> None:
    path = str(save_tiny_janus(tmp_path / "janus"))
    size = model_size(PolicyConfig(path=path), "bfloat16")
    policy = load_policy(path, PolicyConfig(path=path, device="cpu", dtype="float32", rollout_dtype="bfloat16"))
    policy.act([Request("text", "answer", user("a red circle"), (0, 0, 0, 0))], Sampling(max_tokens=2))
    fused = policy._sampler[1].language
    layers = [linear for layer in fused.layers for linear in (layer.qkv, layer.out, layer.gate_up, layer.down)]
    copied = sum(linear.weight.nbytes for linear in layers)
    settings = replace(SETTINGS, rollout_dtype="bfloat16")
    heads = 2 * (size.language.text_head + size.language.image_head)
    assert snapshot_bytes(size, settings) == copied + heads
    embeddings, mask = torch.zeros(2, 5, size.language.width), torch.ones(2, 5, dtype=torch.bool)
    whole = FusedLlama.from_model(policy.adapter.language_model, torch.bfloat16)
    _, cache = prefill(whole, embeddings, mask, torch.tensor([[0], [1], [1]]), 9)
    assert cache_bytes(size.language, 3, 9, "bfloat16") == sum(layer.keys_values.nbytes for layer in cache.layers)


def model(trainable: int, layers: int = 4) -> ModelSize:
    language = LanguageSize(layers, 512, 8, 8, 64, 1024, 1000, 512_000)
    part = PartSize(trainable, trains=True)
    units = {"language_model": (trainable // 5,) * 4}  # and as much again in the root
    return ModelSize("janus", {"language_model": part, "vision": PartSize(10_000)}, language, None, units)


def test_fsdp_divides_what_is_held_and_gathers_units() -> None:
    size = model(5_000_000)
    alone = memory(size, [LOAD], replace(SETTINGS, ranks=8)).phases
    sharded = memory(size, [LOAD], replace(SETTINGS, ranks=8, parallel="fsdp")).phases
    for part in ("trainable weights", "gradients", "AdamW moments"):
        assert sharded["learn"][part] * 8 == alone["learn"][part]
    assert sharded["learn"]["frozen weights"] == alone["learn"]["frozen weights"] == 40_000
    root = unit = 4 * 1_000_000
    assert sharded["learn"]["gathered weights"] == root + 2 * unit
    assert sharded["learn"]["whole gradients"] in (root, root + unit)
    assert sharded["rollout"]["gathered weights"] == 4 * 5_000_000


def test_smaller_batches_and_checkpointing_take_less() -> None:
    size = model(4_000_000)
    load = replace(LOAD, context=100, actions=100, positions=100, mean_positions=50.0)

    def peak(phase, **changes):
        return memory(size, [load], replace(SETTINGS, **changes)).total(phase)

    assert peak("learn", budget=1000) < peak("learn", budget=4000)
    assert peak("learn", checkpointing=True) < peak("learn")
    assert peak("rollout", generation_batch=4) < peak("rollout")


def test_shared_prompts_are_computed_once() -> None:
    shared = replay_tokens(LOAD, 16, checkpointing=False)
    alone = replay_tokens(LOAD, 16, checkpointing=True)
    assert (shared.queries, alone.queries) == (2 * 30 + 16 * 20, 16 * 50)
    assert shared.keys == 2 * 30 + 16 * 50


def test_more_logits_at_once_take_more_memory() -> None:
    """A GPU takes larger chunks than a CPU: 12 bytes per logit forward and backward in float32, of at most `budget`."""
    assert logits_bytes(4, 100, "float32", 10**6) == (4 * 400, 12 * 400)
    assert logits_bytes(4, 100, "float32", 200) == (4 * 200, 12 * 200)
