"""Memory of one rank by phase and by what holds it.

`replicas`: every rank holds all weights. `fsdp` (`motet.distributed.fully_sharded`): weights, gradients, moments and
reference of the parts that train are sharded over R ranks; layers are units, gathered one after the other and freed
again, the rest is gathered for a whole replay, and all of it for a rollout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from motet.estimation.activations import TokenCounts, language_bytes, logits_bytes
from motet.estimation.hardware import GIB
from motet.estimation.model_size import BFLOAT16, FLOAT32, LanguageSize, ModelSize, element_size
from motet.estimation.workload import ActLoad
from motet.numerics.logprobs import LOGITS_BUDGET
from motet.policies.janus.images import PIXELS_AT_ONCE_ON_CPU

Parallel = Literal["replicas", "fsdp"]
RESERVE = 1.5 * GIB
"""CUDA context, workspaces of cuBLAS and buffers of NCCL: about 0.5 GB each."""
FRAGMENTATION = 0.05
"""Share of the allocated bytes that a caching allocator holds beside them: assumed, torch's own reports say 2 to 10 %.
"""


@dataclass(frozen=True)
class Settings:
    """What of a recipe and a launch the arithmetic needs. `dtype` is training's compute type, `rollout_dtype`
    sampling's; `budget` is optimizer.max_tokens_per_microbatch; `generation_batch` None: all of a step at once.
    `passes` are optimizer steps per rollout, `iterations` passes over it; `has_reference`: a loss replays under the
    reference; `holds_reference`: a reward has a copy of it, whether or not a loss needs one.
    `logits_budget`: most logits at once; `pixels_at_once`: of images that are decoded; by default those of a CPU.
    """

    ranks: int
    parallel: Parallel
    dtype: str
    rollout_dtype: str
    budget: int
    generation_batch: int | None
    checkpointing: bool
    has_reference: bool
    iterations: int = 1
    minibatches: int = 1
    holds_reference: bool = False
    logits_budget: int = LOGITS_BUDGET
    pixels_at_once: int = PIXELS_AT_ONCE_ON_CPU


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank, by phase and what holds them. `peak` is the largest phase with reserve and fragmentation."""

    phases: Mapping[str, Mapping[str, float]]

    def total(self, phase: str) -> float:
        """Bytes of a phase."""
        return sum(self.phases[phase].values())

    @property
    def peak_phase(self) -> str:
        """The phase that needs the most."""
        return max(self.phases, key=self.total)

    @property
    def peak(self) -> float:
        """Bytes that a device must have."""
        return self.total(self.peak_phase) * (1 + FRAGMENTATION) + RESERVE


def memory(size: ModelSize, loads: Sequence[ActLoad], settings: Settings) -> Memory:
    """Memory of a rank in the phases `rollout` and `learn`. Models that rewards load are not known here."""
    held = held_all_the_time(size, settings)
    rollout = {**held, **_rollout(size, loads, settings)}
    learn = {**held, **_learn(size, loads, settings)}
    return Memory({"rollout": rollout, "learn": learn})


def held_all_the_time(size: ModelSize, settings: Settings) -> dict[str, float]:
    """Weights (float32 where they train, as stored where they are frozen), two moments of AdamW, 8 bytes per trainable
    parameter, and the reference's copy, 4 (none for fresh adapters, which are switched off instead).
    """
    shards = settings.ranks if settings.parallel == "fsdp" else 1
    trainable = size.trainable
    frozen = {True: 0, False: 0}  # by whether they are sharded
    for part in size.parts.values():
        frozen[part.sharded] += part.bytes - FLOAT32 * part.trainable
    adapters_only = all(not part.trains for part in size.parts.values())
    copy = trainable if (settings.has_reference or settings.holds_reference) and not adapters_only else 0
    return {
        "trainable weights": FLOAT32 * trainable / shards,
        "frozen weights": frozen[True] / shards + frozen[False],
        "AdamW moments": 2 * FLOAT32 * trainable / shards,
        "reference": FLOAT32 * copy / shards,
    }


def _rollout(size: ModelSize, loads: Sequence[ActLoad], settings: Settings) -> dict[str, float]:
    """The sampler's copy of the weights, keys and values, logits, and what decoding images takes."""
    found: dict[str, float] = {"sampler's copy": float(snapshot_bytes(size, settings))}
    language, denoiser = size.language, size.denoiser
    batches = {kind: _sampled_at_once(loads, kind, settings) for kind in {load.kind for load in loads}}
    caches = [0.0]
    for load in loads:
        rows = batches[load.kind] * load.branches
        if load.kind == "denoising":
            assert denoiser is not None
            caches.append(rows * denoiser.saved_per_block)
        elif language is not None:
            cache = cache_bytes(language, rows, load.context + load.positions, settings.rollout_dtype)
            of_logit = element_size(settings.rollout_dtype) + 2 * FLOAT32
            caches.append(float(cache + rows * language.logits(load.kind) * of_logit))
    found["keys, values, logits"] = max(caches)
    if language is not None and "image" in batches:
        at_once = min(batches["image"], max(1, settings.pixels_at_once // max(1, language.image_pixels)))
        found["image decoding"] = at_once * language.decode_bytes
    if settings.parallel == "fsdp":
        found["gathered weights"] = float(size.sharded_bytes)
    return found


def snapshot_bytes(size: ModelSize, settings: Settings) -> int:
    """The fused sampler's copy: all linear layers and heads in the rollout's type. In float32 single layers are shared
    with the model, so only what is fused is copied: queries, keys and values, and gate and up.
    """
    language = size.language
    if language is None:
        return 0
    element = element_size(settings.rollout_dtype)
    heads = language.text_head + language.image_head
    if settings.rollout_dtype == "bfloat16" or settings.parallel == "fsdp":
        return element * (language.products + heads)
    fused = language.width * (language.heads + 2 * language.kv_heads) * language.head_dim
    return element * language.layers * (fused + 2 * language.width * language.intermediate)


def cache_bytes(language: LanguageSize, rows: int, length: int, dtype: str) -> int:
    """Keys and values: 2 L K E elements per row and position."""
    return rows * length * 2 * language.layers * language.kv_heads * language.head_dim * element_size(dtype)


def _learn(size: ModelSize, loads: Sequence[ActLoad], settings: Settings) -> dict[str, float]:
    """Gradients, and the largest of three moments of the largest micro-batch: the end of its forward pass, the backward
    pass of the head, and that of the layers. Gradients of earlier micro-batches are there in all.
    """
    shards = settings.ranks if settings.parallel == "fsdp" else 1
    moments: list[dict[str, float]] = [{}]
    for load in loads:
        if load.trained:
            of_load = micro_batch(size, load, settings)
            if settings.parallel == "fsdp":
                _add_gathered(size, *of_load)
            moments += of_load
    largest = max(moments, key=lambda one: sum(one.values()))
    return {"gradients": FLOAT32 * size.trainable / shards, **largest}


def _add_gathered(size: ModelSize, *moments: dict[str, float]) -> None:
    """What FSDP adds to the moments of a micro-batch: the root, the unit that computes and the one that is prefetched;
    in backward passes the gradients of the root and of a unit before they are sharded.
    """
    for number, moment in enumerate(moments):
        moment["gathered weights"] = float(size.root_bytes + 2 * size.unit_bytes)
        if number and any(part.trains for part in size.parts.values()):
            moment["whole gradients"] = float(size.root_bytes + (size.unit_bytes if number == 2 else 0))


def rows_of_micro_batch(load: ActLoad, settings: Settings) -> int:
    """Acts that one forward pass replays: as many as the budget of tokens allows, at least one."""
    return max(1, min(settings.budget // load.tokens, math.ceil(load.count / settings.ranks)))


def replay_tokens(load: ActLoad, acts: int, *, checkpointing: bool) -> TokenCounts:
    """Tokens of one replay of `acts` acts, their prompts shared as `motet.policies.generation.replay` shares them."""
    prompts = math.ceil(acts / load.group_size) + (1 if load.replayed > 1 else 0)
    rows = acts * load.replayed
    if rows >= 2 * prompts and not checkpointing:
        return TokenCounts.with_shared_prefix(prompts, load.context, rows, load.positions)
    return TokenCounts.of_rows(rows, load.context + load.positions)


def micro_batch(size: ModelSize, load: ActLoad, settings: Settings) -> list[dict[str, float]]:
    """Activations, casts and logits of the largest micro-batch of an act, at the three moments of `_learn`."""
    if load.kind == "denoising":
        return _micro_batch_of_denoising(size, load, settings)
    acts, language = rows_of_micro_batch(load, settings), size.language
    assert language is not None
    checkpointing, dtype = settings.checkpointing, settings.dtype
    tokens = replay_tokens(load, acts, checkpointing=checkpointing)
    layers = language.products if size.parts["language_model"].trains else language.adapters
    kept, again = language_bytes(language, dtype, tokens, checkpointing=checkpointing, cast=layers)
    head_trains = load.kind == "text" and "lm_head" in size.parts and size.parts["lm_head"].trains
    head = BFLOAT16 * language.text_head if head_trains and dtype == "bfloat16" else 0
    predicting = FLOAT32 * acts * load.replayed * load.actions * language.width
    vocabulary, guided = language.logits(load.kind), load.replayed > 1
    forward_logits, backward_logits = logits_bytes(
        acts * load.actions, vocabulary, dtype, settings.logits_budget, guided=guided
    )
    casts = (kept.casts + head, (0 if checkpointing else kept.casts) + head, again.casts)
    activations = (kept.activations + predicting,) * 2 + (again.activations,)
    return [
        {"activations": float(held), "weight casts": float(cast), "logits chunk": float(logits)}
        for held, cast, logits in zip(activations, casts, (forward_logits, backward_logits, 0), strict=True)
    ]


def _micro_batch_of_denoising(size: ModelSize, load: ActLoad, settings: Settings) -> list[dict[str, float]]:
    acts, language, denoiser = rows_of_micro_batch(load, settings), size.language, size.denoiser
    assert denoiser is not None
    kept = {"activations": 0.0, "weight casts": 0.0}
    if denoiser.trains or denoiser.conditioned_on:
        kept["activations"] = acts * load.replayed * load.actions * denoiser.saved
        kept["weight casts"] = denoiser.casts
    if denoiser.conditioned_on and language is not None:
        tokens = TokenCounts.of_rows(acts, load.context)
        _, below = language_bytes(language, settings.dtype, tokens, checkpointing=settings.checkpointing)
        kept["activations"] += below.activations
    return [dict(kept) for _ in range(3)]


def _sampled_at_once(loads: Sequence[ActLoad], kind: str, settings: Settings) -> int:
    """Sequences of a kind that a rank samples as one batch: of all tracks, as far as generation_batch_size allows."""
    by_track = {
        load.track: math.ceil(load.groups / settings.ranks) * load.group_size for load in loads if load.kind == kind
    }
    total = sum(by_track.values())
    return min(total, settings.generation_batch or total)
