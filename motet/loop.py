"""The loop of reinforcement learning, which reads as design section 4 does."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motet.checkpoint import Progress, latest_checkpoint, restore, save_checkpoint
from motet.config import Recipe, to_yaml
from motet.credit import Credit, assign_credit, check_credit
from motet.data import Cursor, open_rows
from motet.errors import ConfigError
from motet.interrupt import Interrupt
from motet.learner import Learner, Stats, micro_batches
from motet.objectives import PolicyObjective, kind_settings
from motet.policies import load_policy
from motet.report.folder import RunFolder
from motet.report.pictures import picture_grid, save_picture
from motet.report.steps import Stopwatch, Watcher, act_numbers, reward_numbers
from motet.rewards import BoundReward, resolve_all, score_groups
from motet.rollout import play
from motet.scenarios import Scenario, resolve_scenario
from motet.trajectory import Act, ActKind, CreditedAct, Group, ImageTokens, Sampling, Scores


@dataclass(frozen=True)
class Session:
    """A run that is ready to go: what a recipe names, built and checked against each other."""

    recipe: Recipe
    policy: Any
    scenario: Scenario
    rewards: list[BoundReward]
    cursor: Cursor
    samplings: dict[ActKind, Sampling]
    learner: Learner


def prepare(recipe: Recipe) -> Session:
    """Build everything that a recipe names; every contradiction is refused here, before the first sample."""
    if not recipe.rewards:
        raise ConfigError("The recipe names no rewards.", fix="add rewards, or use `motet sft` to imitate data.")
    if recipe.run.threads is not None:
        torch.set_num_threads(recipe.run.threads)
    scenario = resolve_scenario(recipe.scenario)
    rows = open_rows(recipe.data, scenario.columns, seed=recipe.run.seed)
    rewards = resolve_all(recipe.rewards, scenario.acts, rows.columns)
    check_credit(scenario, rewards)
    policy = load_policy(recipe.policy.path, recipe.policy)
    if recipe.algorithm.beta or any(k.beta for k in recipe.algorithm.per_kind.values()):
        policy.freeze_reference()
    updates = recipe.run.steps * recipe.algorithm.num_iterations * recipe.algorithm.num_minibatches
    learner = Learner(policy, recipe.optimizer, updates)
    return Session(recipe, policy, scenario, rewards, Cursor(rows, recipe.run.seed), samplings_of(recipe), learner)


def samplings_of(recipe: Recipe) -> dict[ActKind, Sampling]:
    """The recipe's sampling of each kind of act."""
    text, image = recipe.text, recipe.image
    scale = image.guidance_scale if image.guidance != "none" else 1.0
    return {
        "text": Sampling(text.temperature, text.top_k, text.top_p, max_tokens=text.max_tokens),
        "image": Sampling(image.temperature, image.top_k, image.top_p, image.guidance, scale),
    }


def train(session: Session, folder: RunFolder, watcher: Watcher, interrupt: Interrupt) -> Progress:
    """Play, score, credit, learn, report; until the last step or an interruption. Returns where the run stands."""
    recipe, policy = session.recipe, session.policy
    progress = resume(session, folder)
    folder.write_text("recipe.yaml", to_yaml(recipe))
    started = time.monotonic() - progress.seconds
    for step in range(progress.step, recipe.run.steps):
        watch = Stopwatch()
        tasks = session.cursor.next(recipe.run.prompts_per_step)
        with watch.phase("rollout"):
            groups = play(
                policy,
                session.scenario,
                tasks,
                recipe.algorithm.num_generations,
                samplings=session.samplings,
                seed=recipe.run.seed,
                step=step,
            )
        with watch.phase("rewards"):
            scores = score_groups(groups, session.rewards)
        credit = assign_credit(groups, scores, session.rewards, recipe.algorithm)
        with watch.phase("learn"):
            stats = update(session, credit, step)
        numbers = _numbers(session, groups, scores, credit, stats, watch)
        folder.append_metrics(step, numbers)
        watcher.step(step + 1, recipe.run.steps, numbers)
        if (step + 1) % recipe.run.sample_every == 0:
            _save_samples(folder, step + 1, groups, scores, session)
        progress = Progress(step + 1, time.monotonic() - started, session.cursor.state_dict())
        last = step + 1 == recipe.run.steps
        if last or interrupt.asked or (recipe.run.save_every and (step + 1) % recipe.run.save_every == 0):
            save_checkpoint(folder.checkpoints, policy, session.learner, progress, recipe.run.keep_checkpoints)
        if interrupt.asked:
            break
    return progress


def resume(session: Session, folder: RunFolder) -> Progress:
    """Continue the folder's newest checkpoint, if it has one."""
    newest = latest_checkpoint(folder.checkpoints)
    if newest is None:
        folder.forget_metrics_from(0)
        return Progress(0, 0.0, session.cursor.state_dict())
    saved = load_policy(newest, session.recipe.policy)
    progress = restore(newest, session.policy, saved, session.learner)
    session.cursor.load_state_dict(progress.cursor)
    folder.forget_metrics_from(progress.step)
    return progress


def update(session: Session, credit: Credit, step: int) -> Stats:
    """Learn from one rollout: `num_iterations` passes of `num_minibatches` optimizer steps.

    Old log-probs are those of sampling when sampling and learning share their precision. Under autocast they differ by
    more than the ratio should (design law 3), so they are computed again with the learner's shapes: by a replay before
    the first of several updates, or, for a single update, by that update's own forward pass.
    """
    algorithm, policy = session.recipe.algorithm, session.policy
    credited = [one for one in credit.acts if one.act.num_actions]
    if not credited:
        return {"skipped": 1.0}
    acts = [one.act for one in credited]
    several = algorithm.num_iterations * algorithm.num_minibatches > 1
    old: list[Tensor] | None = [_sampled(act) for act in acts]
    if policy.autocast is not None:
        old = log_probs_in_batches(session, acts) if several else None
    longest = {"text": session.recipe.text.max_tokens, "image": 1, "denoising": 1}
    for act in acts:
        longest[act.kind] = max(longest[act.kind], act.num_actions)
    settings = kind_settings(algorithm, longest)
    reference = None
    if any(s.beta for s in settings.values()):
        with policy.reference():
            reference = log_probs_in_batches(session, acts)
    stats: list[Stats] = []
    for iteration in range(algorithm.num_iterations):
        for chosen in _minibatches(credited, algorithm.num_minibatches, (session.recipe.run.seed, step, iteration)):
            objective = PolicyObjective(
                algorithm,
                settings,
                [credited[n].advantage for n in chosen],
                None if old is None else [old[n] for n in chosen],
                None if reference is None else [reference[n] for n in chosen],
            )
            stats.append(session.learner.step([acts[n] for n in chosen], objective))
    return {key: _reduce(key, [s[key] for s in stats if key in s]) for key in stats[0]}


def log_probs_in_batches(session: Session, acts: Sequence[Act]) -> list[Tensor]:
    """Log-probs of acts under the current weights without gradient, in the learner's micro-batches."""
    result: dict[int, Tensor] = {}
    with torch.no_grad():
        costs = [session.policy.cost(act) for act in acts]
        for members in micro_batches(costs, session.recipe.optimizer.tokens_per_microbatch):
            for number, replayed in zip(members, session.policy.replay([acts[n] for n in members]), strict=True):
                result[number] = replayed.log_probs
    return [result[n] for n in range(len(acts))]


def _sampled(act: Act) -> Tensor:
    assert act.log_probs is not None
    return act.log_probs


def _minibatches(credited: Sequence[CreditedAct], count: int, key: tuple[int, int, int]) -> list[list[int]]:
    """Positions of acts in `count` parts of like size, shuffled by seed, step and iteration; one part keeps the order."""
    order = list(range(len(credited)))
    if count > 1:
        random.Random(f"motet {key}").shuffle(order)
    return [sorted(order[part::count]) for part in range(count) if order[part::count]]


def _reduce(key: str, values: list[float]) -> float:
    return max(values) if key.endswith("_max") else sum(values) / len(values)


def _numbers(
    session: Session, groups: list[Group], scores: list[Scores], credit: Credit, stats: Stats, watch: Stopwatch
) -> dict[str, float]:
    return {
        **reward_numbers(scores, {reward.name: reward.weight for reward in session.rewards}),
        **{key: float(value) for key, value in credit.stats.items()},
        **act_numbers(groups, watch.seconds["rollout"]),
        **stats,
        **watch.report(),
    }


def _save_samples(folder: RunFolder, step: int, groups: list[Group], scores: list[Scores], session: Session) -> None:
    """A grid of this step's drawings: two siblings of each prompt, captioned with what was asked and what it earned."""
    pictures, captions = [], []
    for group, score in zip(groups, scores, strict=True):
        for sibling in group.alive[:2]:
            for act in group.trajectories[sibling].acts:
                if isinstance(act, ImageTokens):
                    earned = sum(
                        reward.weight * (score.values[reward.name][sibling] or 0.0)
                        for reward in session.rewards
                        if act.name in reward.acts
                    )
                    pictures.append(act.image)
                    captions.append(f"{earned:.2f}  {act.context.text}")
    if pictures:
        grid = picture_grid(pictures, captions, [None] * len(pictures), title=f"step {step}")
        save_picture(grid, folder.path / "samples" / f"step_{step:06d}.png")
