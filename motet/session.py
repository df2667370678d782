"""From a recipe to a run that is ready to go: everything built, and checked against each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from motet.config import Recipe
from motet.credit import check_credit
from motet.data import Cursor, open_rows
from motet.errors import ConfigError
from motet.learner import Learner
from motet.policies import load_policy
from motet.protocols import LearningPolicy
from motet.rewards import BoundReward, resolve_all
from motet.scenarios import Scenario, resolve_scenario
from motet.trajectory import ActKind, Sampling


@dataclass(frozen=True, eq=False)
class Session:
    """What a recipe names. `rewards` are empty, and `samplings` unused, in supervised training."""

    recipe: Recipe
    policy: LearningPolicy
    scenario: Scenario
    rewards: list[BoundReward]
    cursor: Cursor
    samplings: dict[ActKind, Sampling]
    learner: Learner


def prepare(recipe: Recipe) -> Session:
    """Build a run of reinforcement learning; what contradicts itself is refused here, before the first sample."""
    if not recipe.rewards:
        raise ConfigError("The recipe names no rewards.", fix="add rewards, or use `motet sft` to imitate data.")
    scenario = resolve_scenario(recipe.scenario)
    rows = open_rows(recipe.data, scenario.columns, seed=recipe.run.seed)
    rewards = resolve_all(recipe.rewards, scenario.acts, rows.columns)
    check_credit(scenario, rewards)
    algorithm = recipe.algorithm
    policy = _load(recipe)
    if algorithm.beta or any(own.beta for own in algorithm.per_kind.values()):
        policy.freeze_reference()
    updates = recipe.run.steps * algorithm.num_iterations * algorithm.num_minibatches
    learner = Learner(policy, recipe.optimizer, updates)
    return Session(recipe, policy, scenario, rewards, Cursor(rows, recipe.run.seed), samplings_of(recipe), learner)


def prepare_supervised(recipe: Recipe) -> Session:
    """Build a supervised run. `data.targets` says which column demonstrates each act of the scenario."""
    if recipe.rewards:
        raise ConfigError("Supervised training knows no rewards.", fix="remove `rewards`, or use `motet train`.")
    scenario = resolve_scenario(recipe.scenario)
    targets = recipe.data.targets
    for name in scenario.acts:
        if name not in targets:
            raise ConfigError(
                f"data.targets names no column for the act {name!r} of scenario {scenario.name!r}.",
                fix=f"set data.targets.{name}=COLUMN.",
            )
    pictures = [targets[name] for name, kind in scenario.acts.items() if kind != "text"]
    needed = (*scenario.columns, *targets.values())
    rows = open_rows(recipe.data, needed, seed=recipe.run.seed, picture_columns=pictures)
    policy = _load(recipe)
    learner = Learner(policy, recipe.optimizer, recipe.run.steps)
    return Session(recipe, policy, scenario, [], Cursor(rows, recipe.run.seed), samplings_of(recipe), learner)


def samplings_of(recipe: Recipe) -> dict[ActKind, Sampling]:
    """The recipe's sampling of each kind of act."""
    text, image = recipe.text, recipe.image
    scale = image.guidance_scale if image.guidance != "none" else 1.0
    return {
        "text": Sampling(text.temperature, text.top_k, text.top_p, max_tokens=text.max_tokens),
        "image": Sampling(image.temperature, image.top_k, image.top_p, image.guidance, scale),
    }


def _load(recipe: Recipe) -> LearningPolicy:
    if recipe.run.threads is not None:
        torch.set_num_threads(recipe.run.threads)
    torch.manual_seed(recipe.run.seed)  # new adapters begin at random
    return load_policy(recipe.policy.path, recipe.policy)
