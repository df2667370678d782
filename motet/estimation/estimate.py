"""The estimate of a recipe: memory, seconds, and a simulation for each number of devices, and what to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast, get_args

import torch

from motet.config import Recipe
from motet.core.errors import ConfigError
from motet.estimation.building import model_size
from motet.estimation.efficiency import Efficiency, measured_run
from motet.estimation.hardware import CPU, Device, find_device
from motet.estimation.memory import Memory, Parallel, Settings, memory
from motet.estimation.model_size import ModelSize
from motet.estimation.simulate import Simulated, simulate, with_groups
from motet.estimation.step_time import Machine, StepTime, step_time
from motet.estimation.workload import ActLoad, Lengths, workload
from motet.numerics.linear_head import budget_of_memory
from motet.numerics.logprobs import LOGITS_BUDGET
from motet.policies.janus.images import PIXELS_AT_ONCE, PIXELS_AT_ONCE_ON_CPU
from motet.policies.precision import choose_compute_types, width_of
from motet.rewards.base import BoundReward
from motet.rewards.resolving import resolve
from motet.training.losses import resolve_losses


@dataclass(frozen=True)
class Launch:
    """How a recipe is to be launched. `parallel` is one of `motet.estimation.memory.Parallel`. `reward_seconds`: to
    score one trajectory. `calibrate`: a file of `motet bench step`.
    """

    gpus: tuple[int, ...] = (1,)
    gpu: str = "h100"
    parallel: str = "replicas"
    lengths: Lengths = field(default_factory=Lengths)
    reward_seconds: float = 0.0
    calibrate: Path | None = None


@dataclass(frozen=True)
class Estimate:
    """One number of devices. `simulated` has the recipe's prompts; `grown` as many per device as the first estimate
    has.

    `changes` are overrides and options that lower the peak where it does not fit; `enough`: it fits with them.
    """

    gpus: int
    settings: Settings
    memory: Memory
    time: StepTime
    simulated: Simulated
    grown: Simulated
    fits: bool
    missing_bytes: float
    changes: tuple[str, ...]
    enough: bool


@dataclass(frozen=True)
class Estimates:
    """All of a request, with what was assumed."""

    device: Device
    size: ModelSize
    loads: tuple[ActLoad, ...]
    results: tuple[Estimate, ...]
    assumptions: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether all numbers of devices do."""
        return all(result.fits for result in self.results)


def estimate(recipe: Recipe, launch: Launch) -> Estimates:
    """Estimate one step of `motet train`. Raises ConfigError and CheckpointError as `model_size` and `workload` do."""
    job = _Job.of(recipe, launch)
    loads = job.loads()
    machine = job.calibrated(loads)
    first = launch.gpus[0]
    results: list[Estimate] = []
    for gpus in launch.gpus:
        settings = job.settings(gpus)
        found = memory(job.size, loads, settings)
        missing = max(0.0, found.peak - machine.device.memory)
        of_rewards = launch.reward_seconds
        changes, enough = job.changes(settings, loads) if missing else ((), True)
        results.append(
            Estimate(
                gpus=gpus,
                settings=settings,
                memory=found,
                time=step_time(job.size, loads, settings, machine, reward_seconds=_rewards(loads, settings, launch)),
                simulated=simulate(job.size, loads, settings, machine, reward_seconds=of_rewards),
                grown=simulate(
                    job.size, with_groups(loads, gpus / first), settings, machine, reward_seconds=of_rewards
                ),
                fits=not missing,
                missing_bytes=missing,
                changes=changes,
                enough=enough,
            )
        )
    return Estimates(machine.device, job.size, tuple(loads), tuple(results), tuple(job.assumptions(machine)))


def _rewards(loads: Sequence[ActLoad], settings: Settings, launch: Launch) -> float:
    """Seconds of scoring on the rank with the most trajectories."""
    tracks = {load.track: -(-load.groups // settings.ranks) * load.group_size for load in loads}
    return launch.reward_seconds * sum(tracks.values())


@dataclass(frozen=True)
class _Job:
    """A recipe on a device."""

    recipe: Recipe
    launch: Launch
    device: Device
    dtype: str
    rollout_dtype: str
    size: ModelSize

    @classmethod
    def of(cls, recipe: Recipe, launch: Launch) -> _Job:
        for gpus in launch.gpus:
            if gpus < 1:
                raise ConfigError(f"--gpus is {gpus}.", fix="give 1 or more.")
        if launch.parallel not in get_args(Parallel):
            names = ", ".join(get_args(Parallel))
            raise ConfigError(f"--parallel is {launch.parallel!r}; must be one of: {names}.", fix="name one of these.")
        device, policy = find_device(launch.gpu), recipe.policy
        on_cpu = launch.gpu.lower() == CPU
        if on_cpu:
            types = choose_compute_types(policy, torch.device("cpu"), width_of(policy.path))
            dtype, rollout_dtype = str(types.learning), str(types.sampling)
        else:
            dtype = "bfloat16" if policy.dtype == "auto" else policy.dtype
            rollout_dtype = dtype if policy.rollout_dtype == "auto" else policy.rollout_dtype
        size = model_size(policy, dtype, "eager" if on_cpu else "flash")
        return cls(recipe, launch, device, dtype, rollout_dtype, size)

    def loads(self) -> list[ActLoad]:
        """The acts of a step."""
        return workload(self.recipe, self.size, self.launch.lengths)

    def rewards(self) -> list[BoundReward | None]:
        """The rewards of all tracks, without their models. None: one that needs a package that is missing here."""
        found: list[BoundReward | None] = []
        for track in self.recipe.resolved_tracks().values():
            for config in track.rewards:
                try:
                    found.append(resolve(config, None, None))
                except ConfigError:
                    found.append(None)
        return found

    def settings(self, gpus: int) -> Settings:
        """What memory and time depend on."""
        recipe, algorithm = self.recipe, self.recipe.algorithm
        losses, on_cpu = resolve_losses(recipe, self.size.kinds), self.launch.gpu.lower() == CPU
        return Settings(
            ranks=gpus,
            parallel=cast(Parallel, self.launch.parallel),
            dtype=self.dtype,
            rollout_dtype=self.rollout_dtype,
            budget=recipe.optimizer.max_tokens_per_microbatch,
            generation_batch=recipe.policy.generation_batch_size,
            checkpointing=recipe.policy.gradient_checkpointing,
            has_reference=any(loss.needs_reference for loss in losses.values()),
            holds_reference=any(reward.uses_reference for reward in self.rewards() if reward is not None),
            iterations=algorithm.num_iterations,
            minibatches=algorithm.num_minibatches,
            logits_budget=LOGITS_BUDGET if on_cpu else budget_of_memory(int(self.device.memory)),
            pixels_at_once=PIXELS_AT_ONCE_ON_CPU if on_cpu else PIXELS_AT_ONCE,
        )

    def calibrated(self, loads: Sequence[ActLoad]) -> Machine:
        """The device with the stated shares of its peaks, or with those that a measured run of the same recipe had."""
        machine = Machine(self.device, Efficiency())
        path = self.launch.calibrate
        if path is None:
            return machine
        run = measured_run(path, any(load.kind == "text" for load in loads))
        trajectories = sum({load.track: load.count for load in loads}.values())
        if (run.num_trainable, run.trajectories) != (self.size.trainable, trajectories):
            raise ConfigError(
                f"--calibrate {str(path)!r} measured {run.num_trainable:,} trainable parameters and {run.trajectories} "
                f"trajectories per step; this recipe has {self.size.trainable:,} and {trajectories}.",
                fix="measure the recipe that is estimated: motet bench step RECIPE --json FILE.",
            )
        expected = step_time(self.size, loads, self.settings(1), machine).seconds
        scale = {phase: run.seconds[phase] / expected[phase] for phase in ("rollout", "learn")}
        return Machine(self.device, replace(machine.efficiency, scale=scale))

    def changes(self, settings: Settings, loads: Sequence[ActLoad]) -> tuple[tuple[str, ...], bool]:
        """Changes by which it fits, and whether they suffice: what alone does, else what saves the most, and again."""
        size, chosen = self.size, dict[str, str]()
        while True:
            options = list(self._options(size, settings, loads))
            if not options:
                return tuple(chosen.values()), False
            fitting = [one for one in options if one[1] <= self.device.memory]
            said, peak, size, settings = fitting[0] if fitting else min(options, key=lambda one: one[1])
            chosen[said.split("=")[0]] = said  # a later value of a key replaces the earlier one
            if peak <= self.device.memory:
                return tuple(chosen.values()), True

    def _options(
        self, size: ModelSize, settings: Settings, loads: Sequence[ActLoad]
    ) -> Iterator[tuple[str, float, ModelSize, Settings]]:
        """Changes that lower the peak, each with the peak after it."""
        before = memory(size, loads, settings).peak
        tried: list[tuple[str, ModelSize, Settings]] = []
        if not settings.checkpointing:
            policy = self.recipe.policy.model_copy(update={"gradient_checkpointing": True})
            other = size if size.denoiser is None else model_size(policy, self.dtype, _attention(size))
            tried.append(("policy.gradient_checkpointing=true", other, replace(settings, checkpointing=True)))
        longest = max(load.tokens for load in loads)
        if settings.budget > longest:
            budget = max(longest, settings.budget // 2)
            tried.append((f"optimizer.max_tokens_per_microbatch={budget}", size, replace(settings, budget=budget)))
        present = settings.generation_batch or max(load.count for load in loads)
        if present > 1:
            batch = present // 2
            tried.append((f"policy.generation_batch_size={batch}", size, replace(settings, generation_batch=batch)))
        if settings.parallel == "replicas" and settings.ranks > 1:
            tried.append(("--parallel fsdp", size, replace(settings, parallel="fsdp")))
        for said, other, changed in tried:
            peak = memory(other, loads, changed).peak
            if peak < before:
                yield said, peak, other, changed

    def assumptions(self, machine: Machine) -> Iterator[str]:
        """What the numbers rest on, in words."""
        yield from self.size.notes
        lengths, efficiency = self.launch.lengths, machine.efficiency
        text = lengths.mean_text(self.recipe.sampling.text.max_tokens)
        yield f"prompts of {lengths.prompt} tokens, {lengths.images} image(s) per row, texts of {text:g} tokens"
        yield f"{self.dtype} training, {self.rollout_dtype} sampling; AdamW fused; decode steps as CUDA graphs"
        if efficiency.scale:
            scale = ", ".join(f"{phase} x {factor:.2f}" for phase, factor in efficiency.scale.items())
            yield f"calibrated by {self.launch.calibrate}: {scale}"
        else:
            yield (
                f"{efficiency.training:.0%} of the peak rate in training, {efficiency.bandwidth:.0%} of the memory "
                f"bandwidth and {efficiency.links:.0%} of the links; not measured: --calibrate takes a measurement"
            )
        if not self.launch.reward_seconds:
            yield "rewards take no time and no memory here: --reward-seconds gives the time of one trajectory"
        rewards = self.rewards()
        if None in rewards and not any(reward.uses_reference for reward in rewards if reward is not None):
            yield "a reward cannot be opened here (motet doctor says why): a reference that it may need is not counted"


def _attention(size: ModelSize) -> str:
    return "flash" if size.language is None else size.language.attention
