"""The loop of reinforcement learning, which reads as design section 4 does."""

from __future__ import annotations

from collections.abc import Sequence

from motet.credit import assign_credit
from motet.errors import ConfigError
from motet.report.samples import record_failures, save_samples
from motet.report.steps import act_numbers, reward_numbers
from motet.rewards import score_groups
from motet.rollout import play
from motet.run import Progress, Run
from motet.session import Session
from motet.trajectory import Group, Scores
from motet.update import update


def train(session: Session, run: Run) -> Progress:
    """Play, score, credit, learn, report; until the last step or an interruption. Returns where the run stands."""
    recipe, policy, rewards = session.recipe, session.policy, session.rewards
    algorithm, seed = recipe.algorithm, recipe.run.seed
    G, samplings = algorithm.num_generations, session.samplings
    for step, watch in run.steps():
        with watch.phase("data"):
            tasks = session.cursor.next(recipe.run.prompts_per_step)
        with watch.phase("rollout"):
            groups = play(policy, session.scenario, tasks, G, samplings=samplings, seed=seed, step=step)
        with watch.phase("rewards"):
            scores = score_groups(groups, rewards)
        if step == run.first:
            _require_survivors(groups, scores, recipe.scenario)
        credit = assign_credit(groups, scores, rewards, algorithm)
        with watch.phase("learn"):
            stats = update(policy, session.learner, groups, credit, recipe, step)
        weights = {reward.name: reward.weight for reward in rewards}
        acted = act_numbers(groups, watch.seconds["rollout"])
        run.report(step, {**reward_numbers(scores, weights), **credit.stats, **acted, **stats})
        record_failures(run.folder, step, groups, scores)
        if (step + 1) % recipe.run.sample_every == 0:
            save_samples(run.folder, step + 1, groups, scores, rewards)
    return run.progress


def _require_survivors(groups: Sequence[Group], scores: Sequence[Scores], scenario: str) -> None:
    """A failed trajectory is data; when all of the first step fail, it is a mistake in the scenario or the rewards."""
    failures = [failure for score in scores for failure in score.dropped.values()]
    total = sum(len(group.trajectories) for group in groups)
    if len(failures) == total:
        raise ConfigError(
            f"All {total} trajectories of the first step failed, the first of them in the {failures[0].where}: "
            f"{failures[0].message}.",
            fix=f"mend the scenario {scenario!r}, the rewards or the data.",
        )
