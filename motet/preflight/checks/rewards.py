"""Checks of rewards: finite, not constant, higher for gold than for wrong answers."""

from __future__ import annotations

import math
from collections.abc import Iterator

from motet.preflight.findings import Finding, NotApplicable, check, stop, warn
from motet.preflight.gold import GoldPair
from motet.preflight.probe import Probe

ROUNDING = 1e-6


@check("rewards_finite")
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


@check("rewards_constant")
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
                fix="look at what it is given (motet data RECIPE); without differences nothing is learnt.",
            )


@check("rewards_sign")
def rewards_sign(probe: Probe) -> Iterator[Finding]:
    """Gold answers and target images get more reward than wrong ones"""
    if not any(pair.column for one in probe.tracks for pair in one.golds):
        raise NotApplicable("no row has a gold answer or a target image")
    for one in probe.tracks:
        totals: dict[tuple[int, str], list[GoldPair]] = {}
        known = [pair for pair in one.golds if pair.column is not None]
        for pair in known:
            totals.setdefault((pair.row, pair.act), []).append(pair)
        for (row, act), pairs in totals.items():
            good, bad = (sum(p.reward.weight * getattr(p, side) for p in pairs) for side in ("good", "bad"))
            if good < bad - ROUNDING:
                yield _reversed(f"The rewards{one.label} of the act {act!r} together give", row, pairs[0], good, bad)
                return
        for pair in known:
            good, bad = pair.reward.weight * pair.good, pair.reward.weight * pair.bad
            if good < bad - ROUNDING and math.isfinite(good - bad):
                text = f"Reward {pair.reward.name!r}{one.label}, times its weight, gives"
                of_gold = pair.column in pair.reward.required_columns
                yield _reversed(text, pair.row, pair, good, bad, of_gold=of_gold)
                return


def _reversed(what: str, row: int, pair: GoldPair, good: float, bad: float, *, of_gold: bool = True) -> Finding:
    return (stop if of_gold else warn)(
        f"{what} {good:.3g} to the gold of row {row} (column {pair.column!r}) and {bad:.3g} to a wrong one.",
        cause="the sign of the reward or of its weight is wrong, or it is a distance",
        fix="return more for better completions, or make rewards.weight positive.",
    )
