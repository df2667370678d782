"""The training loop as functions: rollout, score, advantages, update. The trainer of `motet train` is made of the same.

    policy = motet.load_policy("checkpoints/shapes_janus")
    optimizer = motet.Optimizer(policy, learning_rate=1e-5)
    for _ in range(10):
        groups = motet.rollout(policy, "answer", rows, num_generations=8)
        scores = motet.score(groups, my_reward)
        metrics = motet.update(optimizer, groups, motet.advantages(groups, scores))

Whoever assigns advantages otherwise gives `update` a list of `motet.ActWithAdvantage(act, advantage)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from motet.api.recipes import python_recipe
from motet.config import DataConfig
from motet.core.protocols import Policy, TrainablePolicy
from motet.core.registry import bind_objects
from motet.core.task import Task
from motet.core.trajectory import ActWithAdvantage, Group, Scores
from motet.data import open_rows
from motet.report.metrics import reward_metrics
from motet.rewards import BoundReward, bind_policy, resolve_all, score_groups
from motet.scenarios import Scenario, resolve_scenario
from motet.training import policy_update
from motet.training import rollout as rollouts
from motet.training.advantages import assign_advantages
from motet.training.setup import build_optimizer, sampling_params


def rollout(
    policy: Policy,
    scenario: str | Scenario,
    tasks: Sequence[Task | Mapping[str, Any]],
    num_generations: int = 8,
    *,
    sampling: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    step: int | None = None,
) -> list[Group]:
    """Run a scenario G = `num_generations` times on each of P tasks: P groups of G trajectories, in order.

    `scenario`: a name, a path, or what `@scenario` returns. `tasks`: rows (dicts with the columns of the scenario), or
    Tasks. `sampling`: settings per kind of act as in a recipe, e.g. {"text": {"temperature": 0.8, "max_tokens": 64}}.
    The noise is a function of (seed, step, task, generation); `step` None: the number of optimizer steps that the
    policy has seen. Raises as `motet.training.rollout.rollout` does, and DataError for a row without a needed column.
    """
    chosen = resolve_scenario(scenario)
    with python_recipe(None, {"policy": policy, "sampling": sampling, "steps": 1}) as recipe:
        samplings = sampling_params(recipe)
    return rollouts.rollout(
        policy,
        chosen,
        as_tasks(tasks, chosen.columns),
        num_generations,
        samplings=samplings,
        seed=seed,
        step=policy.version if step is None else step,
    )


def as_tasks(rows: Sequence[Task | Mapping[str, Any]], columns: Sequence[str] = ()) -> list[Task]:
    """Tasks as they are; rows read and checked as data files are, numbered by their place."""
    if all(isinstance(row, Task) for row in rows):
        return [row for row in rows if isinstance(row, Task)]
    with bind_objects({"python:tasks": list(rows)}):
        return list(open_rows(DataConfig(source="python:tasks"), columns))


@dataclass(frozen=True, eq=False)
class GroupScores:
    """The rewards of some groups: one `Scores` per group, and the rewards that gave them."""

    scores: list[Scores]
    rewards: list[BoundReward]

    @property
    def metrics(self) -> dict[str, float]:
        """`rewards/NAME/mean` and `/std`, and `reward`, the weighted sum of the means."""
        return reward_metrics(self.scores, {reward.name: reward.weight for reward in self.rewards})


def score(groups: Sequence[Group], rewards: Any, *, policy: Policy | None = None) -> GroupScores:
    """Score the trajectories of `groups`. `rewards` are as for `motet.train`: functions, names, mappings of a recipe.

    `policy` is for rewards that ask for it: those with models of their own, and functions with a parameter `policy`.
    Raises as `motet.rewards.resolve_all` and `score_groups` do.
    """
    acts: dict[str, str] = {act.name: act.kind for group in groups for one in group.trajectories for act in one.acts}
    columns = {column for group in groups for column in group.task.columns}
    with python_recipe(None, {"policy": "none", "rewards": rewards, "steps": 1}) as recipe:
        bound = resolve_all(recipe.rewards, acts, columns)
    if policy is not None:
        bound = bind_policy(bound, policy)
    return GroupScores(score_groups(groups, bound), bound)


def advantages(groups: Sequence[Group], scores: GroupScores, algorithm: Any = None) -> list[ActWithAdvantage]:
    """The advantage of every trained act, by the settings of a recipe's `algorithm` (None: its defaults, GRPO's)."""
    with python_recipe(None, {"policy": "none", "algorithm": algorithm, "steps": 1}) as recipe:
        return list(assign_advantages(groups, scores.scores, scores.rewards, recipe.algorithm).acts)


class Optimizer:
    """AdamW on a policy's trainable parameters with the loss of an `algorithm`; `motet.update` takes its steps."""

    def __init__(
        self,
        policy: TrainablePolicy,
        *,
        algorithm: Any = None,
        steps: int = 1,
        sampling: Mapping[str, Mapping[str, Any]] | None = None,
        **settings: Any,
    ) -> None:
        """`algorithm`: a recipe's section, or a loss. `settings`: those of a recipe's `optimizer`, e.g. learning_rate.

        `steps` is the number of updates, which only a learning rate with a schedule needs. `sampling`: as for
        `rollout`; some losses divide by its `text.max_tokens`. With a KL (`algorithm.beta`) the present weights become
        the reference. Raises ConfigError for settings that contradict each other.
        """
        given = {"algorithm": algorithm, "optimizer": settings, "sampling": sampling, "steps": steps}
        with python_recipe(None, {"policy": policy, **given}) as recipe:
            self.policy, self.recipe = policy, recipe
            self.optimizer = build_optimizer(recipe, policy)
        self.updates = 0


def update(optimizer: Optimizer, groups: Sequence[Group], acts: Sequence[ActWithAdvantage]) -> dict[str, float]:
    """The optimizer steps of one rollout: `groups` as sampled, `acts` among theirs with advantages. Returns metrics.

    Raises ConfigError for acts that the policy sampled before an earlier update, unless the loss corrects for it
    (`rollout_is`).
    """
    metrics = policy_update.update(
        optimizer.policy, optimizer.optimizer, groups, acts, optimizer.recipe, optimizer.updates
    )
    optimizer.updates += 1
    return metrics
