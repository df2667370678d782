"""The fast sampler against transformers' own generate, and against teacher forcing with transformers' modules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.models.gpt2 import GPT2Config, GPT2Model

from motet.core.errors import CheckpointError, ContextError, NumericsError
from motet.core.sampling import Guidance
from motet.core.trajectory import Sampling
from motet.numerics.logprobs import sample
from motet.policies.generation import Decoded, FusedLlama, PromptEmbeddings, decode
from motet.policies.generation import decode_loop as loop
from motet.policies.generation import fused_forward as layers
from motet.policies.generation import fused_linear as projection

PAD, BOS, BOI, IMAGE = 0, 1, 3, 4
VOCAB, CODES, IMAGE_TOKENS, SCALE = 96, 48, 16, 5.0
GREEDY = Sampling(temperature=0.0)
WARPED = {"temperature": 0.7, "top_k": 5, "top_p": 0.8}


def tiny_janus(**text: Any) -> JanusForConditionalGeneration:
    """A random Janus of hidden width 64 whose argmax is decisive: the default init gives near-uniform logits."""
    text_config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": VOCAB,
        "max_position_embeddings": 64,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": None,
    }
    config = JanusConfig(
        text_config=text_config | text,
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
            "projection_dim": 64,
            "num_image_tokens": IMAGE_TOKENS,
        },
        vq_config={
            "embed_dim": 8,
            "num_embeddings": CODES,
            "latent_channels": 32,
            "base_channels": 32,
            "channel_multiplier": [1, 1],
            "num_res_blocks": 1,
            "num_patches": 4,
            "projection_dim": 64,
            "image_token_embed_dim": 64,
        },
        image_token_id=IMAGE,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = JanusForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(0.0, 1.0 if "embed" in name else 1.5 * weight.shape[1] ** -0.5)
            elif "language_model" in name:  # norms and biases that do nothing would hide a forgotten one
                weight.add_(0.3 * torch.randn_like(weight))
    return model


@pytest.fixture(scope="module")
def janus() -> JanusForConditionalGeneration:
    return tiny_janus(num_key_value_heads=2)


def padded_prompts(lengths: tuple[int, ...] = (10, 4, 7, 10, 5)) -> tuple[Tensor, Tensor]:
    """Left-padded ids `[U, T]`, each BOS ... BOI, and their mask."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, VOCAB, (len(lengths), max(lengths)), generator=generator)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for row, length in enumerate(lengths):
        start = max(lengths) - length
        mask[row, start:] = True
        ids[row, :start], ids[row, start], ids[row, -1] = PAD, BOS, BOI
    return ids, mask


def unconditional(ids: Tensor) -> Tensor:
    """transformers' null branch: everything but BOS and BOI replaced by pad (the conditional mask is kept)."""
    return torch.where((ids == BOS) | (ids == BOI), ids, PAD)


def uniforms(batch: int, num_actions: int = IMAGE_TOKENS) -> Tensor:
    return torch.rand(batch, num_actions, generator=torch.Generator().manual_seed(2))


def draw(
    model: JanusForConditionalGeneration,
    ids: Tensor,
    mask: Tensor,
    sampling: Sampling,
    rows: Tensor | None = None,
    noise: Tensor | None = None,
    snapshot: FusedLlama | None = None,
) -> Decoded:
    """Decode image tokens; the null prefixes are rows U .. 2U - 1."""
    rows = torch.arange(len(ids)) if rows is None else rows
    guided = sampling.guidance != "none"
    with torch.no_grad():
        prefixes = PromptEmbeddings(
            model.get_input_embeddings()(torch.cat([ids, unconditional(ids)]) if guided else ids),
            torch.cat([mask, mask]) if guided else mask,
        )
    return decode(
        snapshot or FusedLlama.from_model(model.model.language_model),
        prefixes,
        rows,
        rows + len(ids) if guided else None,
        head=model.model.generation_head,
        embed=model.prepare_embeddings_for_image_generation,
        uniforms=uniforms(len(rows)) if noise is None else noise,
        sampling=sampling,
    )


def write(
    model: JanusForConditionalGeneration, ids: Tensor, mask: Tensor, num_actions: int, stop_id: int | None = None
) -> Decoded:
    """Greedily decode text tokens."""
    embed = model.get_input_embeddings()
    with torch.no_grad():
        prefixes = PromptEmbeddings(embed(ids), mask)
    snapshot = FusedLlama.from_model(model.model.language_model)
    return decode(
        snapshot,
        prefixes,
        torch.arange(len(ids)),
        None,
        head=model.lm_head,
        embed=embed,
        uniforms=torch.zeros(len(ids), num_actions),
        sampling=GREEDY,
        stop_ids=() if stop_id is None else (stop_id,),
    )


def forced_logits(language_model: Any, prefix: Tensor, mask: Tensor, continued: Tensor, head: Callable) -> Tensor:
    """Logits `[B, N, V]` of N actions by one forward of transformers' module over prefix and actions[:-1]."""
    embeddings = torch.cat([prefix, continued], dim=1)
    full = torch.cat([mask, torch.ones(continued.shape[:2], dtype=torch.bool)], dim=1).long()
    with torch.no_grad():
        positions = (full.cumsum(dim=1) - 1).clamp(min=0)
        out = language_model(inputs_embeds=embeddings, attention_mask=full, position_ids=positions)
        return head(out.last_hidden_state[:, prefix.shape[1] - 1 :]).float()


def forced_image_logits(
    model: JanusForConditionalGeneration, ids: Tensor, mask: Tensor, tokens: Tensor, language_model: Any = None
) -> Tensor:
    with torch.no_grad():
        prefix = model.get_input_embeddings()(ids)
        continued = model.prepare_embeddings_for_image_generation(tokens[:, :-1])
    language_model = language_model or model.model.language_model
    return forced_logits(language_model, prefix, mask, continued, model.model.generation_head)


def generated_images(model: JanusForConditionalGeneration, ids: Tensor, mask: Tensor) -> Tensor:
    config = GenerationConfig(
        do_sample=False,
        guidance_scale=SCALE,
        bos_token_id=BOS,
        pad_token_id=PAD,
        generation_kwargs={"boi_token_id": BOI},
    )
    return model.generate(ids, attention_mask=mask.long(), generation_mode="image", generation_config=config)


ARCHITECTURES = {
    "plain": {},
    "grouped-query": {"num_key_value_heads": 2},
    "one-kv-head": {"num_key_value_heads": 1},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "wide-heads": {"head_dim": 32},
    "linear-rope": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    "yarn": {
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 4.0,
            "rope_theta": 1e4,
            "original_max_position_embeddings": 16,
        }
    },
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_guided_images_equal_transformers_generate(architecture: str) -> None:
    model = tiny_janus(**ARCHITECTURES[architecture])
    ids, mask = padded_prompts()
    ours = draw(model, ids, mask, Sampling(temperature=0.0, guidance="guided", guidance_scale=SCALE))
    theirs = generated_images(model, ids, mask)
    assert len(theirs.unique()) > IMAGE_TOKENS  # not one token for ever
    assert torch.equal(ours.ids, theirs)
    assert ours.lengths.tolist() == [IMAGE_TOKENS] * len(ids)


@pytest.mark.parametrize("lengths", [(10, 4, 7, 10, 5), (6, 6)], ids=["padded", "unpadded"])
def test_greedy_unguided_images_equal_a_plain_loop(
    janus: JanusForConditionalGeneration, lengths: tuple[int, ...]
) -> None:
    ids, mask = padded_prompts(lengths)
    ours = draw(janus, ids, mask, GREEDY)
    tokens = torch.zeros(len(ids), 0, dtype=torch.long)
    for _ in range(IMAGE_TOKENS):  # no cache: the whole sequence again for every token
        padded = torch.nn.functional.pad(tokens, (0, 1))  # the last token is not read
        logits = forced_image_logits(janus, ids, mask, padded)
        tokens = torch.cat([tokens, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(ours.ids, tokens)
    log_probs = torch.log_softmax(forced_image_logits(janus, ids, mask, tokens), -1).gather(-1, tokens[..., None])
    torch.testing.assert_close(ours.log_probs, log_probs.squeeze(-1), atol=1e-4, rtol=0)


def text_reference(model: JanusForConditionalGeneration, ids: Tensor, mask: Tensor, eos: int | None) -> Tensor:
    config = GenerationConfig(do_sample=False, max_new_tokens=20, eos_token_id=eos, bos_token_id=BOS, pad_token_id=PAD)
    return model.generate(ids, attention_mask=mask.long(), generation_config=config)[:, ids.shape[1] :]


def early_stop(free: Tensor) -> int:
    """A token that ends some of these texts, but neither all nor at the very start."""
    for token in free[:, 2:].unique().tolist():
        ended = (free == token).any(dim=1)
        if 2 <= int(ended.sum()) < len(free) and not (free[:, :2] == token).any():
            return token
    raise AssertionError("no such token")


def test_greedy_text_equals_transformers_generate_up_to_the_end_token(janus: JanusForConditionalGeneration) -> None:
    ids, mask = padded_prompts()
    free = text_reference(janus, ids, mask, None)
    assert torch.equal(write(janus, ids, mask, 20).ids, free)
    stop = early_stop(free)
    ours, theirs = write(janus, ids, mask, 20, stop), text_reference(janus, ids, mask, stop)
    assert torch.equal(ours.ids[:, : theirs.shape[1]], theirs)  # both pad with 0
    for row, length in enumerate(ours.lengths.tolist()):
        ended = stop in free[row].tolist()
        assert length == (free[row].tolist().index(stop) + 1 if ended else 20)
        assert ours.ids[row, length - 1] == stop or not ended
        assert not ours.ids[row, length:].any()
        assert not ours.log_probs[row, length:].any()
        assert ours.log_probs[row, :length].all()


def test_text_ends_early_when_every_row_has_stopped(janus: JanusForConditionalGeneration) -> None:
    ids, mask = padded_prompts()
    stop = int(write(janus, ids[:1], mask[:1], 20).ids[0, 3])
    calls = []
    embed = janus.get_input_embeddings()
    snapshot = FusedLlama.from_model(janus.model.language_model)
    prefixes = PromptEmbeddings(embed(ids[:1]).detach(), mask[:1])

    def counting(tokens: Tensor) -> Tensor:
        calls.append(len(tokens))
        return embed(tokens)

    rows, noise = torch.zeros(3, dtype=torch.long), torch.zeros(3, 20)
    out = decode(
        snapshot,
        prefixes,
        rows,
        None,
        head=janus.lm_head,
        embed=counting,
        uniforms=noise,
        sampling=GREEDY,
        stop_ids=() if stop is None else (stop,),
    )
    first = out.ids[0].tolist().index(stop) + 1
    assert out.lengths.tolist() == [first] * 3
    assert len(calls) == first - 1


@pytest.mark.parametrize("guidance", ["none", "guided", "conditional"])
def test_sampled_log_probs_equal_teacher_forcing(janus: JanusForConditionalGeneration, guidance: Guidance) -> None:
    ids, mask = padded_prompts()
    rows = torch.tensor([0, 0, 0, 1, 2, 2, 4])
    noise = uniforms(len(rows))
    out = draw(janus, ids, mask, Sampling(**WARPED, guidance=guidance, guidance_scale=2.0), rows, noise)
    conditional = forced_image_logits(janus, ids[rows], mask[rows], out.ids)
    null = forced_image_logits(janus, unconditional(ids)[rows], mask[rows], out.ids)
    behaved = conditional if guidance == "none" else 2.0 * conditional - null
    warpers = LogitsProcessorList([TemperatureLogitsWarper(0.7), TopKLogitsWarper(5), TopPLogitsWarper(0.8)])

    def warped_log_probs(logits: Tensor) -> Tensor:
        flat = logits.flatten(0, 1)
        chosen = out.ids.flatten()[:, None]
        kept = warpers(chosen, flat).scatter(1, chosen, (flat / 0.7).gather(1, chosen))
        return torch.log_softmax(kept, -1).gather(1, chosen).view_as(out.ids)

    drawn = sample(warpers(out.ids, behaved.flatten(0, 1)), noise.flatten()).view_as(out.ids)
    assert torch.equal(out.ids, drawn)
    assert out.log_probs.dtype == torch.float32
    scored = conditional if guidance == "conditional" else behaved
    torch.testing.assert_close(out.log_probs, warped_log_probs(scored), atol=1e-4, rtol=0)
    if guidance == "conditional":
        torch.testing.assert_close(out.behaviour_log_probs, warped_log_probs(behaved), atol=1e-4, rtol=0)
        assert (out.behaviour_log_probs - out.log_probs).abs().max() > 0.1
    else:
        assert out.behaviour_log_probs is None


def test_a_row_does_not_depend_on_its_company(janus: JanusForConditionalGeneration) -> None:
    ids, mask = padded_prompts()
    sampling = Sampling(guidance="guided", guidance_scale=2.0)
    noise = uniforms(8)
    rows = torch.tensor([4, 1, 1, 0, 2, 3, 1, 0])
    together = draw(janus, ids, mask, sampling, rows, noise)
    assert not torch.equal(together.ids[1], together.ids[2])  # siblings with noise of their own
    for place, row in [(1, 1), (6, 1), (4, 2), (3, 0)]:
        start = int((~mask[row]).sum())
        own = slice(row, row + 1)
        alone = draw(janus, ids[own, start:], mask[own, start:], sampling, None, noise[place : place + 1])
        assert torch.equal(alone.ids[0], together.ids[place])
        torch.testing.assert_close(alone.log_probs[0], together.log_probs[place], atol=1e-4, rtol=0)


def test_each_prefix_is_read_once(janus: JanusForConditionalGeneration, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, mask = padded_prompts()
    lengths: list[int] = []
    project = layers.project
    monkeypatch.setattr(layers, "project", lambda *a: lengths.append(len(a[2])) or project(*a))
    draw(janus, ids, mask, Sampling(guidance="guided", guidance_scale=2.0), torch.tensor([0, 0, 0, 1, 1, 1, 2, 3, 4]))
    assert lengths == [ids.numel() * 2] * 2 + [2 * 9] * 2 * (IMAGE_TOKENS - 1)  # and the last token is not fed back


@pytest.mark.parametrize("guided", [False, True], ids=["unguided", "guided"])
def test_compaction_changes_nothing(
    janus: JanusForConditionalGeneration, monkeypatch: pytest.MonkeyPatch, guided: bool
) -> None:
    ids, mask = padded_prompts()
    embed = janus.get_input_embeddings()
    with torch.no_grad():
        prefixes = PromptEmbeddings(embed(torch.cat([ids, unconditional(ids)])), torch.cat([mask, mask]))
    snapshot = FusedLlama.from_model(janus.model.language_model)
    rows = torch.arange(24) % 5
    sampling = Sampling(temperature=2.0, guidance="conditional" if guided else "none", guidance_scale=1.5)
    noise = uniforms(24, 40)
    sizes: list[int] = []
    compact = layers.Cache.compact
    monkeypatch.setattr(
        layers.Cache, "compact", lambda cache, active: sizes.append(len(active)) or compact(cache, active)
    )

    def run(threshold: float, look_every: int = 1) -> Decoded:
        monkeypatch.setattr(loop, "COMPACT_BELOW", threshold)
        monkeypatch.setitem(loop.STOP_CHECK_EVERY, "cpu", look_every)
        null_rows = rows + 5 if guided else None
        return decode(
            snapshot,
            prefixes,
            rows,
            null_rows,
            head=janus.lm_head,
            embed=embed,
            uniforms=noise,
            sampling=sampling,
            stop_ids=(BOI,),
        )

    never = run(0.0)
    assert not sizes
    assert len(never.lengths.unique()) > 4
    for threshold, look_every in ((1.0, 1), (0.8, 1), (1.0, 8)):
        often = run(threshold, look_every)
        assert len(sizes) > 1
        assert torch.equal(often.ids, never.ids)
        assert torch.equal(often.lengths, never.lengths)
        torch.testing.assert_close(often.log_probs, never.log_probs, atol=1e-4, rtol=0)
        if guided:
            torch.testing.assert_close(often.behaviour_log_probs, never.behaviour_log_probs, atol=1e-4, rtol=0)
        sizes.clear()


@pytest.mark.parametrize("state", ["active", "disabled", "merged"])
def test_lora_wrapped_model_equals_the_wrapped_module(state: str) -> None:
    model = tiny_janus(attention_bias=True)
    targets = ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.3, target_modules=targets, init_lora_weights=False)
    base_tokens = draw(model, *padded_prompts(), GREEDY).ids
    torch.manual_seed(3)
    wrapped = get_peft_model(copy.deepcopy(model.model.language_model), config)
    wrapped.eval()
    if state == "disabled":
        wrapped.base_model.disable_adapter_layers()
    if state == "merged":
        wrapped.base_model.merge_adapter()
    ids, mask = padded_prompts()
    out = draw(model, ids, mask, GREEDY, snapshot=FusedLlama.from_model(wrapped))
    logits = forced_image_logits(model, ids, mask, out.ids, wrapped)
    assert torch.equal(out.ids, logits.argmax(-1))
    assert torch.equal(out.ids, base_tokens) == (state == "disabled")
    expected = torch.log_softmax(logits, -1).gather(-1, out.ids[..., None]).squeeze(-1)
    torch.testing.assert_close(out.log_probs, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("part", "fused"), [("self_attn.k_proj", "qkv"), ("mlp.down_proj", "down")])
def test_small_lora_delta_survives_bfloat16_fused_weights(part: str, fused: str) -> None:
    """Beside weights of 1 and -1, which cancel, bfloat16 has no room for a change of 0.001."""
    model = tiny_janus().model.language_model
    linear = model.layers[0].get_submodule(part)
    linear.weight.data.zero_()
    linear.weight.data[:, 0], linear.weight.data[:, 1] = 1.0, -1.0
    config = LoraConfig(r=2, lora_alpha=4, target_modules=[part.split(".")[1]])
    wrapped = get_peft_model(model, config).eval()
    adapted = model.layers[0].get_submodule(part)
    adapted.lora_A["default"].weight.data.fill_(0.5)
    adapted.lora_B["default"].weight.data.fill_(0.0005)
    snapshot = FusedLlama.from_model(wrapped, torch.bfloat16)
    inputs = torch.zeros(3, linear.weight.shape[1], dtype=torch.bfloat16)
    inputs[:, :2] = 1.0
    projection = getattr(snapshot.layers[0], fused)
    with torch.no_grad():
        expected = adapted(inputs.float())
    width = expected.shape[1]
    first = 0 if fused == "down" else model.layers[0].self_attn.q_proj.weight.shape[0]
    out = projection(inputs)[:, first : first + width]
    assert expected.abs().min() > 1e-3
    torch.testing.assert_close(out.float(), expected, rtol=0.01, atol=0)
    residual = torch.zeros(3, len(projection.weight), dtype=torch.bfloat16)
    torch.testing.assert_close(
        projection.added_to(residual, inputs)[:, first : first + width].float(), expected, rtol=0.01, atol=0
    )


def test_low_precision_snapshot_follows_the_cast_module(janus: JanusForConditionalGeneration) -> None:
    """bfloat16 takes the fused-attention path; GQA and padding included."""
    ids, mask = padded_prompts()
    snapshot = FusedLlama.from_model(janus.model.language_model, torch.bfloat16)
    assert {snapshot.dtype} == {torch.bfloat16}
    low = copy.deepcopy(janus).to(torch.bfloat16)
    out = draw(low, ids, mask, Sampling(**WARPED), snapshot=snapshot)
    assert out.log_probs.dtype == torch.float32
    forced = draw(janus, ids, mask, Sampling(temperature=1.0), noise=uniforms(5))
    full = draw(low, ids, mask, Sampling(temperature=1.0), noise=uniforms(5), snapshot=snapshot)
    exact = torch.log_softmax(forced_image_logits(janus, ids, mask, full.ids), -1).gather(-1, full.ids[..., None])
    theirs = torch.log_softmax(forced_image_logits(low, ids, mask, full.ids), -1).gather(-1, full.ids[..., None])
    ours_off, theirs_off = (full.log_probs - exact[..., 0]).abs().mean(), (theirs - exact).abs().mean()
    assert ours_off < 1.5 * theirs_off  # no further from float32 than transformers' own bfloat16
    assert (full.ids == forced.ids).float().mean() > 0.2


def test_packed_products_change_nothing(janus: JanusForConditionalGeneration, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, mask = padded_prompts()
    monkeypatch.setattr(projection, "PACKED_FROM", 1 << 60)
    plain = draw(janus, ids, mask, GREEDY)
    monkeypatch.setattr(projection, "PACKED_FROM", 0)
    packed = draw(janus, ids, mask, GREEDY)
    assert torch.equal(plain.ids, packed.ids)
    torch.testing.assert_close(plain.log_probs, packed.log_probs, atol=1e-4, rtol=0)


def test_a_stale_snapshot_is_refused() -> None:
    model = tiny_janus()
    snapshot = FusedLlama.from_model(model.model.language_model)
    optimizer = torch.optim.AdamW(model.model.language_model.parameters(), lr=1e-3)
    for parameter in model.model.language_model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert not snapshot.stale
    optimizer.step()
    assert snapshot.stale
    with pytest.raises(RuntimeError, match="take a new one"):
        draw(model, *padded_prompts(), GREEDY, snapshot=snapshot)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "rope_type is 'dynamic'"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
    ],
    ids=["activation", "rope", "attention"],
)
def test_a_decoder_that_it_cannot_reproduce_is_refused(text: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError, match=named) as caught:
        FusedLlama.from_model(tiny_janus(**text).model.language_model)
    assert caught.value.fix


def test_other_architectures_and_adapters_are_refused() -> None:
    with pytest.raises(CheckpointError, match="GPT2Model"):
        FusedLlama.from_model(GPT2Model(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=8)))
    dora = get_peft_model(tiny_janus().model.language_model, LoraConfig(target_modules=["q_proj"], use_dora=True))
    with pytest.raises(CheckpointError, match=r"layers\.0\.self_attn\.q_proj has a LoRA variant"):
        FusedLlama.from_model(dora)


def test_too_long_a_prompt_is_refused_with_its_length(janus: JanusForConditionalGeneration) -> None:
    ids, mask = padded_prompts((10, 12))
    write(janus, ids, mask, 53)  # 12 + 52 positions of 64: the last token is not fed back
    with pytest.raises(ContextError, match="12 tokens and 54 new"):
        write(janus, ids, mask, 54)


def test_not_a_number_is_an_error_with_a_cause() -> None:
    model = tiny_janus()
    with torch.no_grad():
        model.model.language_model.layers[1].mlp.down_proj.weight[3, 5] = torch.nan
    with pytest.raises(NumericsError, match="not finite"):
        draw(model, *padded_prompts(), Sampling())


def test_decoded_tensors_are_usable_in_autograd(janus: JanusForConditionalGeneration) -> None:
    out = draw(janus, *padded_prompts(), Sampling(guidance="conditional", guidance_scale=2.0))
    assert not any(t.is_inference() for t in (out.ids, out.log_probs, out.behaviour_log_probs, out.lengths))


def test_nothing_to_do_is_done(janus: JanusForConditionalGeneration) -> None:
    ids, mask = padded_prompts()
    out = draw(janus, ids, mask, GREEDY, torch.zeros(0, dtype=torch.long), torch.zeros(0, IMAGE_TOKENS))
    assert out.ids.shape == (0, IMAGE_TOKENS)
    assert out.lengths.shape == (0,)
    out = write(janus, ids, mask, 0)
    assert out.ids.shape == out.log_probs.shape == (5, 0)
    assert out.lengths.tolist() == [0] * 5


def test_wrong_use_is_refused(janus: JanusForConditionalGeneration) -> None:
    ids, mask = padded_prompts()
    with pytest.raises(ValueError, match="padded on the left"):
        draw(janus, ids.flip(1), mask.flip(1), GREEDY)
    with pytest.raises(ValueError, match="'guided' needs null_rows"):
        decode(
            FusedLlama.from_model(janus.model.language_model),
            PromptEmbeddings(janus.get_input_embeddings()(ids).detach(), mask),
            torch.arange(5),
            None,
            head=janus.model.generation_head,
            embed=janus.prepare_embeddings_for_image_generation,
            uniforms=uniforms(5),
            sampling=Sampling(guidance="guided", guidance_scale=2.0),
        )
