"""Throughput of the sampler compared with transformers' `generate` on the same weights, prompts and guidance.

Both sides decode greedily and must generate the same tokens; runs alternate, so that a busy machine slows both. The
lower bound is the time of the matrix products alone with the same kernels; the rest is overhead.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, JanusConfig, JanusForConditionalGeneration

from motet.core.errors import NumericsError
from motet.core.trajectory import Sampling
from motet.evaluation.bench_static import sample_static
from motet.evaluation.measuring import measure_seconds, ratio_fields
from motet.policies.generation.decode_loop import PromptEmbeddings, decode
from motet.policies.generation.fused_weights import FusedLlama
from motet.policies.versions import read_with_cache
from motet.weights.hf_output import suppress_hf_output

IMAGE_PROMPT, TEXT_PROMPT, TEXT_TOKENS = 12, 85, 64
"""Lengths of the longest prompts (others are up to a third shorter and left-padded), and of generated texts."""

TARGETS = {16: 2.0, 64: 1.6}
"""How many times the throughput of `generate` guided images should reach on two CPU cores, by batch size."""

TOLERANCE = 1e-3
"""If two logits are this close, rounding may swap them, and the two sides may continue differently."""


@dataclass(frozen=True, eq=False)
class Prompts:
    """Left-padded token ids of different prompts, and those of the unconditional branch."""

    ids: Int[Tensor, "B T"]
    uncond_ids: Int[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]
    special: dict[str, int]


def bench_rollout(
    policy_path: str | None = None,
    batch_sizes: Sequence[int] = (16, 64),
    guidance_scale: float = 5.0,
    repeats: int = 5,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    seed: int = 0,
    device: str = "cpu",
    engine: str | None = None,
) -> list[dict[str, Any]]:
    """Compare our sampler with transformers; one row per task and batch size.

    Tasks: guided images and texts against `generate`; unguided images, which `generate` does not support, against a
    loop over transformers' modules. `per_second` counts sequences; `ratio` is the median speedup over the repeats, with
    its extremes; `overhead_ratio` our time divided by the lower bound; `ties` the number of sequences that diverge
    where logits are equal. `policy_path` None: a tiny random model. `engine`: `eager` or `static`; None: what policies
    use on this device. `progress(done, total)` is called after every row. Raises NumericsError if tokens differ
    otherwise.
    """
    engine = engine or ("static" if torch.device(device).type == "cuda" else "eager")
    sample = partial(_sample, static=engine == "static")
    if policy_path is None:
        model: Any = reference_model(seed)
    else:
        model = JanusForConditionalGeneration.from_pretrained(policy_path, dtype=torch.float32)
    model = model.to(device).eval()
    model.generation_config.eos_token_id = None  # generate texts of full length, as our side does
    rows = []
    with torch.no_grad(), suppress_hf_output():
        for batch in batch_sizes:
            image_prompts, text_prompts = (
                make_prompts(model, batch, length, seed) for length in (IMAGE_PROMPT, TEXT_PROMPT)
            )
            kinds = (
                ("image", image_prompts, guidance_scale),
                ("image", image_prompts, None),
                ("text", text_prompts, None),
            )
            for task, prompts, scale in kinds:
                rows.append(_compare(model, task, prompts, scale, sample, repeats))
                progress(len(rows), len(kinds) * len(batch_sizes))
    return rows


def _compare(
    model: Any,
    task: str,
    prompts: Prompts,
    guidance_scale: float | None,
    sample: Callable[..., Tensor],
    repeats: int,
) -> dict[str, Any]:
    """Time our sampler, the baseline and the lower bound in turns."""
    baseline = _generate if task == "text" or guidance_scale is not None else _module_loop
    runners: list[Callable[[], Any]] = [
        lambda: sample(model, task, prompts, guidance_scale),
        lambda: baseline(model, task, prompts, guidance_scale),
        _matmul_lower_bound(model, task, prompts, guidance_scale),
    ]
    ours, reference, _ = (run() for run in runners)  # the first runs also warm up
    ties = _count_ties(model, task, prompts, guidance_scale, (ours, reference))
    times = [[measure_seconds(run, model.device) for run in runners] for _ in range(repeats)]
    batch, mine = len(prompts.ids), statistics.median(t[0] for t in times)
    return {
        "task": task,
        "batch": batch,
        "guidance_scale": guidance_scale,
        "tokens": ours.shape[1],
        "per_second": batch / mine,
        "baseline": "generate" if baseline is _generate else "transformers modules",
        "baseline_per_second": batch / statistics.median(t[1] for t in times),
        **ratio_fields([t[0] for t in times], [t[1] for t in times]),
        "target": TARGETS.get(batch) if task == "image" and guidance_scale is not None else None,
        "lower_bound_per_second": batch / statistics.median(t[2] for t in times),
        "overhead_ratio": statistics.median(t[0] / t[2] for t in times),
        "ties": ties,
    }


# --- the three runners


def _sample(
    model: Any, task: str, prompts: Prompts, guidance_scale: float | None, static: bool = False
) -> Int[Tensor, "B N"]:
    """Our sampler, including the work after a weight update: fusing weights and embedding all image tokens."""
    embed, head, count = _embed_head_and_length(model, task)
    uniforms = torch.zeros(len(prompts.ids), count, device=prompts.ids.device)
    sampling = Sampling(
        temperature=0.0,
        guidance="none" if guidance_scale is None else "guided",
        guidance_scale=guidance_scale or 1.0,
    )
    if static:
        return sample_static(model, task, prompts, uniforms, sampling)
    snapshot = FusedLlama.from_model(model.model.language_model)
    ids, mask, uncond_rows = prompts.ids, prompts.mask, None
    batch = len(ids)
    if guidance_scale is not None:  # unconditional prompts of equal length share a prefix
        _, uncond_rows = torch.unique(mask.sum(dim=1), return_inverse=True)
        first = [int((uncond_rows == n).nonzero()[0]) for n in range(int(uncond_rows.max()) + 1)]
        ids, mask = torch.cat([ids, prompts.uncond_ids[first]]), torch.cat([mask, mask[first]])
        uncond_rows = uncond_rows + batch
    if task == "image":
        table = embed(torch.arange(model.model.vqmodel.config.num_embeddings, device=ids.device))
        embed = partial(nn.functional.embedding, weight=table)
    decoded = decode(
        snapshot,
        PromptEmbeddings(model.get_input_embeddings()(ids), mask),
        torch.arange(batch, device=ids.device),
        uncond_rows,
        head=head,
        embed=embed,
        uniforms=uniforms,
        sampling=sampling,
    )
    return decoded.ids


def _generate(model: Any, task: str, prompts: Prompts, guidance_scale: float | None) -> Int[Tensor, "B N"]:
    """transformers' `generate`."""
    special = {"bos_token_id": prompts.special["bos"], "pad_token_id": prompts.special["pad"]}
    config = GenerationConfig(
        do_sample=False,
        max_length=prompts.ids.shape[1] + TEXT_TOKENS if task == "text" else None,
        guidance_scale=guidance_scale,
        generation_kwargs={"boi_token_id": prompts.special["boi"]},
        **special,
    )
    mask = prompts.mask.long()
    out = model.generate(prompts.ids, attention_mask=mask, generation_mode=task, generation_config=config)
    return out if task == "image" else out[:, prompts.ids.shape[1] :]


def _module_loop(model: Any, task: str, prompts: Prompts, guidance_scale: float | None) -> Int[Tensor, "B N"]:
    """Unguided decoding by transformers' modules with their default cache."""
    assert guidance_scale is None
    embed, head, count = _embed_head_and_length(model, task)
    cache, tokens = DynamicCache(config=model.config.text_config), []
    mask, embeddings = prompts.mask.long(), model.get_input_embeddings()(prompts.ids)
    for _ in range(count):
        out = read_with_cache(model.model.language_model, cache, inputs_embeds=embeddings, attention_mask=mask)
        tokens.append(head(out.last_hidden_state[:, -1]).argmax(dim=-1))
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        embeddings = embed(tokens[-1]).unsqueeze(1)
    return torch.stack(tokens, dim=1)


def _matmul_lower_bound(model: Any, task: str, prompts: Prompts, guidance_scale: float | None) -> Callable[[], None]:
    """Only the matrix products of one decode, with their real shapes and kernels."""
    snapshot = FusedLlama.from_model(model.model.language_model)
    _, head, count = _embed_head_and_length(model, task)
    heads = [module for module in head.modules() if isinstance(module, nn.Linear)]
    (batch, length), branches = prompts.ids.shape, 1 if guidance_scale is None else 2
    prefixes = batch + (len(prompts.mask.sum(dim=1).unique()) if branches == 2 else 0)
    rows, width, capacity = batch * branches, snapshot.head_dim, length + count - 1
    pairs, queries = rows * snapshot.kv_heads, snapshot.heads // snapshot.kv_heads

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, device=prompts.ids.device)

    caches = [noise(2, pairs, capacity, width) for _ in snapshot.layers]
    sizes = {prefixes * length, prefixes, rows}
    inputs = {
        (m, n): noise(m, n)
        for m in sizes
        for layer in snapshot.layers[:1]
        for n in {p.weight.shape[1] for p in (layer.qkv, layer.out, layer.gate_up, layer.down)}
        | {module.in_features for module in heads}
    }
    query, weights = noise(pairs, queries, width), noise(pairs, queries, capacity)
    read = noise(prefixes * snapshot.heads, length, width), noise(prefixes * snapshot.heads, length, length)

    def run() -> None:
        for layer in snapshot.layers:
            last = layer is snapshot.layers[-1]
            layer.qkv(inputs[prefixes * length, layer.qkv.weight.shape[1]])
            asked = slice(-1, None) if last else slice(None)
            torch.bmm(read[0][:, asked], read[0].transpose(1, 2))
            torch.bmm(read[1][:, asked], read[0])
            for p in (layer.out, layer.gate_up, layer.down):
                p(inputs[prefixes if last else prefixes * length, p.weight.shape[1]])
        for length_so_far in range(length, capacity + 1):
            if length_so_far > length:
                for layer, (keys, values) in zip(snapshot.layers, caches, strict=True):
                    for p in (layer.qkv, layer.out, layer.gate_up, layer.down):
                        p(inputs[rows, p.weight.shape[1]])
                    torch.bmm(query, keys[:, :length_so_far].transpose(1, 2))
                    torch.bmm(weights[..., :length_so_far], values[:, :length_so_far])
            for module in heads:
                nn.functional.linear(inputs[rows, module.in_features], module.weight)

    return run


# --- shared by the runners


def _embed_head_and_length(model: Any, task: str) -> tuple[Callable[[Tensor], Tensor], nn.Module, int]:
    """The embedding of actions, the head that predicts them, and their number per sequence."""
    if task == "text":
        return model.get_input_embeddings(), model.lm_head, TEXT_TOKENS
    count = model.model.vision_model.config.num_image_tokens
    return model.prepare_embeddings_for_image_generation, model.model.generation_head, count


def _count_ties(
    model: Any,
    task: str,
    prompts: Prompts,
    guidance_scale: float | None,
    outputs: tuple[Int[Tensor, "B N"], Int[Tensor, "B N"]],
) -> int:
    """The number of sequences that diverge where two logits are equal. Raises NumericsError for other differences."""
    ours, baseline = outputs
    diverged = (ours != baseline).any(dim=1).nonzero().squeeze(1)
    if not len(diverged):
        return 0
    logits = _forced_logits(model, task, prompts.ids[diverged], prompts.mask[diverged], baseline[diverged])
    if guidance_scale is not None:
        null = _forced_logits(model, task, prompts.uncond_ids[diverged], prompts.mask[diverged], baseline[diverged])
        logits = null + guidance_scale * (logits - null)
    first = (ours != baseline)[diverged].int().argmax(dim=1)
    here = logits[torch.arange(len(diverged), device=logits.device), first]
    best = here.topk(2).values
    wrong = (best[:, 0] - best[:, 1] > TOLERANCE).nonzero().flatten().tolist()
    if wrong:
        raise NumericsError(
            f"Our {task} tokens differ from transformers' in {len(wrong)} of {len(ours)} sequences, "
            f"first in sequence {int(diverged[wrong[0]])} at token {int(first[wrong[0]])}.",
            fix="report this as a bug of the sampler, with the versions of torch and transformers.",
        )
    return len(diverged)


def _forced_logits(
    model: Any,
    task: str,
    ids: Int[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    tokens: Int[Tensor, "B N"],
) -> Float[Tensor, "B N V"]:
    embed, head, _ = _embed_head_and_length(model, task)
    embeddings = torch.cat([model.get_input_embeddings()(ids), embed(tokens[:, :-1])], dim=1)
    full = torch.cat([mask.long(), torch.ones_like(tokens[:, :-1])], dim=1)
    positions = (full.cumsum(dim=1) - 1).clamp(min=0)
    out = model.model.language_model(inputs_embeds=embeddings, attention_mask=full, position_ids=positions)
    return head(out.last_hidden_state[:, ids.shape[1] - 1 :])


def make_prompts(model: Any, batch: int, longest: int, seed: int) -> Prompts:
    """Random prompts BOS ... BOI of several lengths."""
    text = model.config.text_config
    known: dict[str, Any] = {"bos": text.bos_token_id, "pad": text.pad_token_id, "image": model.config.image_token_id}
    used = {name: token for name, token in known.items() if token is not None and token < text.vocab_size}
    unused = [token for token in range(min(text.vocab_size, 4096)) if token not in used.values()]
    special: dict[str, int] = {name: used[name] if name in used else unused.pop(0) for name in ("bos", "pad", "boi")}
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor(unused)[torch.randint(len(unused), (batch, longest), generator=generator)]
    starts = torch.arange(batch) % (longest // 3 + 1)
    columns = torch.arange(longest)
    mask = columns >= starts[:, None]
    ids = ids.masked_fill(~mask, special["pad"]).masked_fill(columns == starts[:, None], special["bos"])
    ids[:, -1] = special["boi"]
    uncond_ids = torch.where((ids == special["bos"]) | (ids == special["boi"]), ids, special["pad"])
    device = model.device
    return Prompts(ids.to(device), uncond_ids.to(device), mask.to(device), special)


def reference_model(seed: int) -> JanusForConditionalGeneration:
    """A tiny random Janus with distinct logits (transformers' initialisation gives near-uniform ones)."""
    text = {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 512,
        "max_position_embeddings": 512,
    }
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 4}
    vq = {"embed_dim": 8, "num_embeddings": 256, "latent_channels": 32, "base_channels": 32, "num_res_blocks": 1}
    config = JanusConfig(
        text_config=text,
        vision_config={**vision, "projection_dim": 128, "num_image_tokens": 64},
        vq_config={**vq, "channel_multiplier": [1], "projection_dim": 128, "image_token_embed_dim": 128},
        image_token_id=3,
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = JanusForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(0.0, 1.0 if "embed" in name else 1.5 * weight.shape[1] ** -0.5)
    return model
