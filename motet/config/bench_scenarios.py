"""The scenario benchmark: a plan with a stage per scenario and policy, over seeds, on one budget. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from motet.config.load import read_mapping
from motet.config.plan import Plan, Stage, check_known, trajectories
from motet.config.stages import parse_plan
from motet.core.errors import CheckpointError, ConfigError

MAKERS = {
    "checkpoints/shapes_janus": "scripts/make_shapes_janus.py, then recipes/shapes_cold_start.yaml",
    "checkpoints/shapes_large_scenarios": "recipes/shapes_large_scenarios_cold_start.yaml",
    "checkpoints/shapes_unified": "scripts/make_shapes_unified.py, then recipes/shapes_unified_cold_start.yaml",
}
"""What makes a shipped cold start."""


@dataclass(frozen=True)
class StageFilter:
    """What of a plan is run. Empty: all of it.

    `only` are names of stages or of scenarios, `policies` names of checkpoint folders. `budget`: trajectories that each
    stage generates at least, in place of its `run.steps`.
    """

    seeds: tuple[int, ...] = (0,)
    only: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    budget: int | None = None


def load_bench(path: Path, output: Path, choice: StageFilter, overrides: Sequence[str] = ()) -> dict[int, Plan]:
    """Seed -> the chosen stages of the plan in a YAML file, their run folders below `folder_of(output, seed)`.

    Raises ConfigError for what is wrong in the plan or chosen and not in it; CheckpointError for a policy that is not
    there.
    """
    content, source = read_mapping(path), str(path)
    if not choice.seeds:
        raise ConfigError("No seed was given.", fix="give --seed 0.")
    whole = parse_plan(content, output, overrides, source)
    changes = list(overrides)
    if choice.budget is not None:
        changes += [_steps(stage, choice.budget) for stage in whole.stages]
    plans: dict[int, Plan] = {}
    for seed in dict.fromkeys(choice.seeds):
        seeded = [f"stages.{stage.name}.run.seed={seed}" for stage in whole.stages]
        plan = parse_plan(content, folder_of(output, seed), [*changes, *seeded], source)
        plans[seed] = _chosen(plan, choice, folder_of(output, seed), source)
    for stage in plans[choice.seeds[0]].stages:
        _require_measured(stage, source)
        _require_checkpoint(stage)
    return plans


def folder_of(output: Path, seed: int) -> Path:
    """Where the plan runs under one seed."""
    return output / f"seed_{seed}"


def policy_of(stage: Stage) -> str:
    """The name of the checkpoint folder that a stage starts from."""
    return Path(stage.recipe.policy.path).name


def _steps(stage: Stage, budget: int) -> str:
    each = sum(trajectories(stage.recipe).values()) / stage.recipe.run.steps
    return f"stages.{stage.name}.run.steps={math.ceil(budget / each)}"


def _chosen(plan: Plan, choice: StageFilter, output: Path, source: str) -> Plan:
    scenarios = {
        stage.name: {stage.name, *(t.scenario.name for t in stage.recipe.resolved_tracks().values())}
        for stage in plan.stages
    }
    check_known(choice.only, {name for names in scenarios.values() for name in names}, f"{source}: --only")
    check_known(choice.policies, {policy_of(stage) for stage in plan.stages}, f"{source}: --policy")
    stages = tuple(
        stage
        for stage in plan.stages
        if (not choice.only or scenarios[stage.name] & set(choice.only))
        and (not choice.policies or policy_of(stage) in choice.policies)
    )
    if not stages:
        raise ConfigError(f"{source}: no stage has such a scenario and such a policy.", fix="choose others.")
    return plan.part(plan.needed([stage.name for stage in stages], output))


def _require_measured(stage: Stage, source: str) -> None:
    if stage.kind != "rl" or stage.recipe.eval.suite.name != "rewards":
        raise ConfigError(
            f"{source}: stages.{stage.name} is a stage of kind {stage.kind} with eval.suite {stage.recipe.eval.suite}; "
            "the benchmark compares before and after reinforcement learning by rewards on validation rows.",
            fix="write kind: rl and eval.suite: rewards, or leave the stage out with --only.",
        )


def _require_checkpoint(stage: Stage) -> None:
    """A cold start that ships, and is not here: better said before the first stage than hours into the run."""
    path = stage.recipe.policy.path
    for shipped, makers in MAKERS.items():
        if not stage.init_from and Path(path).resolve() == Path(shipped).resolve() and not Path(path).exists():
            raise CheckpointError(
                f"There is no checkpoint at {path!r}, which stage {stage.name!r} starts from.",
                fix=f"run from the repository's root, or make it: {makers}; or choose others with --policy.",
            )
