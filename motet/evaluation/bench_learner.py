"""A whole GRPO step, rollout and update, beside those of other systems: same weights, prompts, lengths and settings.

- Texts against TRL's `GRPOTrainer`: `motet.evaluation.bench_trl`.
- Images against a loop as the published code of unified RL runs it: `motet.evaluation.bench_eager`.

The steps of both sides alternate in one process; the first of each is not timed. Rewards cost nothing on either side,
and no group is without variance, so every act is trained on.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from motet.config import Recipe, parse_recipe
from motet.core.registry import bind_objects
from motet.core.task import Task
from motet.evaluation.bench_models import (
    IMAGE_GUIDANCE_SCALE,
    BenchSizes,
    Seconds,
    StepShape,
    alternating_reward,
    make_policy,
)
from motet.evaluation.measuring import measure_seconds, ratio_fields
from motet.policies.janus import JanusPolicy
from motet.rewards import StepLog, resolve_all, score_groups
from motet.scenarios import GenerateImage, GenerateText, Scenario
from motet.training.advantages import assign_advantages
from motet.training.policy_update import update
from motet.training.rollout import rollout
from motet.training.setup import build_optimizer, sampling_params

TARGETS = {"text": 1.5}
"""How many times longer the baseline's step should take at least, by task."""


class MotetStep:
    """Training steps of motet, timed by phase. `lengths` are those of the last step's acts."""

    name = "motet"

    def __init__(self, policy: JanusPolicy, task: str, shape: StepShape) -> None:
        self.policy, self.shape = policy, shape
        self.scenario = _scenario(task)
        with bind_objects({"python:reward": alternating_reward}):
            self.recipe = _recipe(task, shape)
            self.rewards = resolve_all(self.recipe.rewards, self.scenario.acts, {"prompt"})
        self.optimizer = build_optimizer(self.recipe, policy, {task})
        self.tasks = [Task(number, {"prompt": text}) for number, text in enumerate(shape.texts())]
        self.num_steps = 0
        self.lengths: list[int] = []

    def __call__(self) -> Seconds:
        """One step: P x G acts, one optimizer step."""
        groups: list[Any] = []

        def generate() -> None:
            groups[:] = rollout(
                self.policy,
                self.scenario,
                self.tasks,
                self.shape.generations,
                samplings=sampling_params(self.recipe),
                seed=self.shape.seed,
                step=self.num_steps,
            )

        def learn() -> None:
            scores = score_groups(groups, self.rewards, StepLog(self.num_steps))
            acts = assign_advantages(groups, scores, self.rewards, self.recipe.algorithm).acts
            self.lengths = [one.act.num_actions for one in acts]
            update(self.policy, self.optimizer, groups, acts, self.recipe, self.num_steps)

        device = self.policy.device
        seconds = {"generate": measure_seconds(generate, device), "learn": measure_seconds(learn, device)}
        self.num_steps += 1
        return {**seconds, "step": sum(seconds.values())}


def bench_learner(
    task: str, shape: StepShape, sizes: BenchSizes, repeats: int, on_step: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Compare one task, `text` or `image`, with its baseline; one row of figures.

    `ratio` is the median over the repeats of how many times longer the baseline's step takes, with its extremes;
    `ratios` by phase. Raises DependencyError for texts where TRL is not installed.
    """
    policy = make_policy(sizes, shape.seed)
    own = MotetStep(policy, task, shape)
    own_times: list[Seconds] = []

    def own_step() -> None:
        own_times.append(own())
        on_step()

    if task == "text":
        from motet.evaluation.bench_trl import TrlSteps as Baseline
    else:
        from motet.evaluation.bench_eager import EagerSteps as Baseline
    baseline = Baseline(policy, shape)
    baseline_times = baseline.run(1 + repeats, own_step)
    ours, theirs = own_times[1:], baseline_times[1:]
    phases = ("generate", "learn", "step")
    pairs = {phase: ([one[phase] for one in ours], [one[phase] for one in theirs]) for phase in phases}
    return {
        "task": task,
        "baseline": baseline.name,
        **asdict(shape),
        "vocab": sizes.vocab if task == "text" else sizes.codes,
        "num_trainable": sum(parameter.numel() for parameter in policy.trainable().values()),
        "mean_length": statistics.fmean(own.lengths),
        "baseline_mean_length": statistics.fmean(baseline.lengths),
        "seconds": {phase: statistics.median(a) for phase, (a, _) in pairs.items()},
        "baseline_seconds": {phase: statistics.median(b) for phase, (_, b) in pairs.items()},
        **ratio_fields(*pairs["step"]),
        "ratios": {phase: ratio_fields(*pair) for phase, pair in pairs.items()},
        "target": TARGETS.get(task),
    }


def _scenario(task: str) -> Scenario:
    """One act on the prompt."""

    def act(row: Task) -> Any:
        yield GenerateText(row.prompt) if task == "text" else GenerateImage(row.prompt)

    return Scenario("bench", act, {"answer" if task == "text" else "image": task}, ("prompt",))


def _recipe(task: str, shape: StepShape) -> Recipe:
    """TRL's defaults, with an AdamW step over all sequences in one micro-batch."""
    return parse_recipe(
        {
            "policy": {"path": "none", "dtype": "float32", "rollout_dtype": "float32"},
            "scenario": "none",
            "data": {"source": "none"},
            "rewards": [{"name": "python:reward"}],
            "algorithm": {"num_generations": shape.generations, "loss": "dapo", "beta": shape.beta},
            "sampling": {
                "text": {"max_tokens": shape.tokens},
                "image": {"guidance": "conditional", "guidance_scale": IMAGE_GUIDANCE_SCALE},
            },
            "optimizer": {"learning_rate": shape.learning_rate, "max_tokens_per_microbatch": 1 << 20},
            "run": {"steps": 1, "prompts_per_step": shape.prompts, "seed": shape.seed},
        }
    )
