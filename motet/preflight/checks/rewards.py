"""Checks of rewards: finite, not constant, higher for gold than for wrong answers."""

from __future__ import annotations

from collections.abc import Iterator

from motet.evaluation.data_preview import ANSWER_COLUMNS
from motet.preflight.findings import Finding, NotApplicable, check, stop, warn
from motet.preflight.gold import GoldPair
from motet.preflight.probe import Probe

ROUNDING = 1e-6


@check("rewards_finite", "rl")
def rewards_finite(probe: Probe) -> Iterator[Finding]:
    """Every reward gives finite numbers to all trajectories that it applies to"""
    for one in probe.tracks:
        for name, scores in one.scores.items():
            dropped = [failure for score in scores for failure in score.dropped.values() if failure.where == "reward"]
            if dropped:
                yield warn(
                    f"Reward {name!r}{one.label} gave no number to {len(dropped)} of "
                    f"{sum(len(group.trajectories) for group in one.groups)} trajectories: {dropped[0].message}.",
                    cause="it divides by zero, or fails for some completions",
                    fix="correct the reward: trajectories without a number are dropped and train nothing.",
                )


@check("rewards_constant", "rl")
def rewards_constant(probe: Probe) -> Iterator[Finding]:
    """Rewards differ between trajectories, or at least between gold and wrong answers"""
    for one in probe.tracks:
        for reward in one.track.rewards:
            values = [
                v for score in one.scores.get(reward.name, []) for v in score.values[reward.name] if v is not None
            ]
            golds = [pair for pair in one.golds if pair.reward is reward]
            told_apart = any(pair.good != pair.bad for pair in golds)
            if reward.weight == 0 or len(values) < 2 or len(set(values)) > 1 or told_apart:
                continue
            gold = f", and {golds[0].bad:g} to something wrong" if golds else ""
            yield warn(
                f"Reward {reward.name!r}{one.label} gave {values[0]:g} to all {len(values)} trajectories{gold}.",
                cause="it is constant, expects answers in another form, or the policy never succeeds yet",
                fix="look at what it is given (motet data RECIPE); without differences there is no gradient.",
            )


@check("rewards_sign", "rl")
def rewards_sign(probe: Probe) -> Iterator[Finding]:
    """Gold answers and target images get more reward than wrong ones"""
    if not any(pair.column for one in probe.tracks for pair in one.golds):
        raise NotApplicable("no row has a gold answer or a target image")
    for one in probe.tracks:
        known = [pair for pair in one.golds if pair.column is not None]
        for pair in known:
            good, bad = pair.reward.weight * pair.good, pair.reward.weight * pair.bad
            if _reads_gold(pair) and good < bad - ROUNDING:
                what = f"Reward {pair.reward.name!r}{one.label}, times its weight, gives"
                yield stop(_reversed(what, pair, good, bad), **_SIGN)
                return
        for pair in known:
            same = [other for other in known if (other.row, other.act) == (pair.row, pair.act)]
            good, bad = (sum(p.reward.weight * getattr(p, side) for p in same) for side in ("good", "bad"))
            if good < bad - ROUNDING:
                what = f"The rewards{one.label} of the act {pair.act!r} together give"
                yield warn(_reversed(what, pair, good, bad), **_SIGN)
                return


_SIGN = {
    "cause": "the sign of a reward or of its weight is wrong, it is a distance, or others outweigh correctness",
    "fix": "return more for better completions, and make rewards.weight of correctness positive and large.",
}


def _reads_gold(pair: GoldPair) -> bool:
    """Whether the reward names a column with gold: then it should prefer the gold."""
    named = {*pair.reward.required_columns, *pair.reward.required, *(pair.reward.accepts or ())}
    return bool(named & {pair.column, *ANSWER_COLUMNS})


def _reversed(what: str, pair: GoldPair, good: float, bad: float) -> str:
    return f"{what} {good:.3g} to the gold of row {pair.row} (column {pair.column!r}) and {bad:.3g} to a wrong one."
