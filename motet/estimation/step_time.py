"""Seconds of a step on one rank, by phase: arithmetic over operations and bytes, at assumed shares of a device's peaks.

A product of an M x K by a K x N matrix is 2 M K N operations; a token's forward pass through P parameters of linear
layers is 2 P, its backward pass 4 P (2 P for the inputs' gradients, 2 P for the weights'; frozen weights have only the
former). Attention of q queries to k keys is 4 q k H E operations forward, twice that backward; half where it is causal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from motet.estimation.activations import TokenCounts
from motet.estimation.communication import learn_seconds as communication_seconds
from motet.estimation.communication import rollout_seconds
from motet.estimation.efficiency import Efficiency
from motet.estimation.hardware import Device
from motet.estimation.memory import Settings, replay_tokens, rows_of_micro_batch
from motet.estimation.model_size import FLOAT32, DenoiserSize, LanguageSize, ModelSize, element_size
from motet.estimation.workload import ActLoad


@dataclass(frozen=True)
class StepTime:
    """Seconds of a rank, by phase and by part of the phase. Rewards are not known: 0 unless they are given."""

    rollout: Mapping[str, float]
    rewards: float
    learn: Mapping[str, float]

    @property
    def seconds(self) -> dict[str, float]:
        """By phase."""
        return {"rollout": sum(self.rollout.values()), "rewards": self.rewards, "learn": sum(self.learn.values())}

    @property
    def total(self) -> float:
        """Of the step."""
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Machine:
    """A device, and the share of its peaks that is assumed."""

    device: Device
    efficiency: Efficiency

    def products(self, operations: float, dtype: str) -> float:
        """Seconds of large matrix products."""
        return operations / (self.device.rate(dtype) * self.efficiency.training)

    def copies(self, moved: float) -> float:
        """Seconds to read or write so many bytes."""
        return moved / (self.device.bandwidth * self.efficiency.bandwidth)

    def decode_step(self, moved: float, operations: float, dtype: str, kernels: int) -> float:
        """Seconds of one decode step: the slower of memory and products, or launching its kernels."""
        products = operations / (self.device.rate(dtype) * self.efficiency.decoding)
        return max(self.copies(moved), products, kernels * self.efficiency.kernel_seconds)


def step_time(
    size: ModelSize,
    loads: Sequence[ActLoad],
    settings: Settings,
    machine: Machine,
    *,
    reward_seconds: float = 0.0,
) -> StepTime:
    """The step of a rank that has its share of the groups, ceil(groups / ranks): the slowest one."""
    scale = machine.efficiency.scale
    rollout: dict[str, float] = {}
    learn: dict[str, float] = {}
    for load in loads:
        name = f"{load.track}/{load.name}" if load.track else load.name
        rollout[name] = act_seconds(size, load, settings, machine)
        if load.trained:
            for part, seconds in replay_seconds(size, load, settings, machine).items():
                learn[part] = learn.get(part, 0.0) + seconds
    if size.language is not None:
        # Read in float32 where weights train, written in the sampler's type.
        copied = size.language.products + size.language.text_head + size.language.image_head
        rollout["sampler's copy"] = machine.copies(float(copied * (FLOAT32 + element_size(settings.rollout_dtype))))
    gathering = rollout_seconds(size, settings, machine.device, machine.efficiency)
    if gathering:
        rollout["gathering weights"] = gathering
    steps = settings.iterations * settings.minibatches
    learn["optimizer"] = steps * optimizer_seconds(size, settings, machine)
    computing = learn.get("forward", 0.0) + learn.get("backward", 0.0)
    learn["communication"] = communication_seconds(
        size, settings, machine.device, machine.efficiency, computing, passes(loads, settings)
    )
    return StepTime(
        {name: seconds * scale.get("rollout", 1.0) for name, seconds in rollout.items()},
        reward_seconds * scale.get("rewards", 1.0),
        {name: seconds * scale.get("learn", 1.0) for name, seconds in learn.items()},
    )


def count_on_rank(load: ActLoad, settings: Settings) -> int:
    """Acts of the rank that has the most: groups are not divided."""
    return math.ceil(load.groups / settings.ranks) * load.group_size


def act_seconds(size: ModelSize, load: ActLoad, settings: Settings, machine: Machine) -> float:
    """Sampling an act on the rank with the most of them, in batches of generation_batch_size."""
    count = count_on_rank(load, settings)
    batch = min(count, settings.generation_batch or count)
    batches = count / batch
    if load.kind == "denoising":
        assert size.denoiser is not None
        return batches * denoising_seconds(size, size.denoiser, load, batch, settings, machine)
    assert size.language is not None
    return batches * tokens_seconds(size.language, load, batch, settings, machine)


def tokens_seconds(language: LanguageSize, load: ActLoad, batch: int, settings: Settings, machine: Machine) -> float:
    """Sampling a batch of token acts, of which mean_positions / positions are unfinished at each position."""
    share = load.mean_positions / load.positions
    seconds = decode_seconds(language, load, lambda _: share * batch, settings, machine)
    return seconds + around_decoding(language, load, batch, settings, machine)


def around_decoding(language: LanguageSize, load: ActLoad, batch: int, settings: Settings, machine: Machine) -> float:
    """Prefill of the distinct contexts and encoding of their images; decoding of generated images."""
    prompts = math.ceil(batch / load.group_size)
    prefill = 2.0 * language.products * prompts * load.context * load.branches
    vision = prompts * load.shown * language.vision_flops
    decoding = batch * language.decode_flops if load.kind == "image" else 0.0
    return machine.products(prefill + vision + decoding, settings.rollout_dtype)


def decode_seconds(
    language: LanguageSize, load: ActLoad, active: Callable[[int], float], settings: Settings, machine: Machine
) -> float:
    """One decode step per position, while `active(position)` sequences are unfinished; those that are finished leave.

    Every step reads the weights of all layers and of the head once, each row's keys and values so far, and its logits,
    which are written and read as float32.
    """
    dtype = settings.rollout_dtype
    weights = (language.products + language.head(load.kind)) * element_size(dtype)
    per_position = 2 * language.layers * language.kv_heads * language.head_dim * element_size(dtype)
    logits = language.logits(load.kind) * 2 * FLOAT32
    per_row = 2.0 * (language.products + language.head(load.kind))
    attention = 4.0 * language.layers * language.heads * language.head_dim
    kernels = language.layers * machine.efficiency.kernels_per_layer
    seconds = 0.0
    for start in range(0, load.positions, _STRIDE):
        rows = active(start) * load.branches
        if not rows:
            break
        steps = min(_STRIDE, load.positions - start)
        length = load.context + start + steps / 2
        moved = weights + rows * (length * per_position + logits)
        operations = rows * (per_row + attention * length)
        seconds += steps * machine.decode_step(moved, operations, dtype, kernels)
    return seconds


_STRIDE = 16
"""Decode steps that are taken as equally long."""


def denoising_seconds(
    size: ModelSize, denoiser: DenoiserSize, load: ActLoad, batch: int, settings: Settings, machine: Machine
) -> float:
    """`evaluations` of the transformer for every branch, the conditions of distinct contexts, the autoencoder.

    An evaluation is bound by products: weights are read once for the tokens of the whole batch.
    """
    rows = batch * load.branches
    products = machine.products(rows * denoiser.flops, settings.dtype)
    reading = machine.copies(float(size.parts["transformer"].parameters * element_size(settings.dtype)))
    conditions = 0.0
    if size.language is not None and denoiser.conditioned_on:
        prompts = math.ceil(batch / load.group_size)
        conditions = (
            2.0 * size.language.products * prompts * load.context + prompts * load.shown * size.language.vision_flops
        )
    return load.evaluations * max(products, reading) + machine.products(
        conditions + batch * denoiser.decode_flops, settings.dtype
    )


def replay_seconds(size: ModelSize, load: ActLoad, settings: Settings, machine: Machine) -> dict[str, float]:
    """Replaying an act: forward and backward passes of every iteration, the reference's and the old log-probs' pass.

    With gradient checkpointing the backward pass computes the forward pass again.
    """
    forward, backward = replay_flops(size, load, settings)
    dtype, iterations = settings.dtype, settings.iterations
    found = {
        "forward": machine.products(iterations * forward, dtype),
        "backward": machine.products(iterations * backward, dtype),
    }
    if settings.has_reference:
        found["reference"] = machine.products(forward, dtype)
    if dtype == "bfloat16" and iterations * settings.minibatches > 1:
        found["old log-probs"] = machine.products(forward, dtype)
    return found


def replay_flops(size: ModelSize, load: ActLoad, settings: Settings) -> tuple[float, float]:
    """Operations of the forward and of the backward pass over all of a rank's acts of a load."""
    count = count_on_rank(load, settings)
    if load.kind == "denoising":
        assert size.denoiser is not None
        forward = count * load.replayed * load.actions * size.denoiser.flops
        full = size.parts["transformer"].trains
        backward = forward * (2 if full else 1) if size.denoiser.trains else 0.0
        return forward, backward + (forward if settings.checkpointing and backward else 0.0)
    language = size.language
    assert language is not None
    acts = rows_of_micro_batch(load, settings)
    share = load.mean_positions / load.positions
    tokens = replay_tokens(load, acts, checkpointing=settings.checkpointing)
    prompts = tokens.queries - acts * load.replayed * load.positions
    queries = (prompts + share * acts * load.replayed * load.positions) * count / acts
    attention = _attention(language, tokens) * share * count / acts
    products = 2.0 * language.products * queries
    layers = products + attention
    images = math.ceil(count / load.group_size) * load.shown * language.vision_flops
    actions = count * load.replayed * load.actions * share
    head = 2.0 * language.head(load.kind) * actions
    full = size.parts["language_model"].trains
    below = ((2 * products if full else products) + 2 * attention) if language.trains else 0.0
    again = layers if settings.checkpointing and language.trains else 0.0
    head_trains = size.parts["lm_head"].trains and load.kind == "text"
    chunks = acts * load.actions * language.logits(load.kind) > settings.logits_budget
    of_head = head * ((2 if head_trains else 1) + (1 if chunks else 0))  # more than one chunk is computed again
    return layers + images + head, below + again + of_head


def _attention(language: LanguageSize, tokens: TokenCounts) -> float:
    """4 H E operations per pair of query and key and layer; `flash` leaves out the half that is masked."""
    half = 0.5 if language.attention == "flash" else 1.0
    return half * 4.0 * language.layers * language.heads * language.head_dim * tokens.scores


def optimizer_seconds(size: ModelSize, settings: Settings, machine: Machine) -> float:
    """Bound by memory: fused AdamW reads weight, gradient and both moments and writes three of them, 28 bytes per
    parameter; the norm reads the gradient and clipping reads and writes it, 12 bytes.
    """
    shards = settings.ranks if settings.parallel == "fsdp" else 1
    return machine.copies((7 + 3) * FLOAT32 * size.trainable / shards)


def passes(loads: Sequence[ActLoad], settings: Settings) -> int:
    """Forward and backward passes of a step on one rank."""
    passes = sum(
        math.ceil(count_on_rank(load, settings) / rows_of_micro_batch(load, settings)) for load in loads if load.trained
    )
    return settings.iterations * max(passes, settings.minibatches)
