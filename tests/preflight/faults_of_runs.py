"""Planted faults that a step finds by itself, whatever was checked before."""

from dataclasses import replace

from motet.core.trajectory import ActWithAdvantage
from motet.preflight.probe import Probe, read_rows, roll_out
from motet.training.engines import LOCAL
from motet.training.policy_update import update
from tests.preflight.planting import fault


def updated(world, change):
    """Update on the groups of a tiny rollout, whose acts are changed."""
    session = world.session()
    act = session.policy.act
    world.patch.setattr(session.policy, "act", lambda requests, s: [change(one) for one in act(requests, s)])
    probe = Probe(session, LOCAL, world.folder)
    probe.tracks = read_rows(session)
    roll_out(probe)
    groups = [group for one in probe.tracks for group in one.groups]
    acts = [act for group in groups for one in group.trajectories for act in one.acts]
    update(session.policy, session.optimizer, groups, [ActWithAdvantage(act, 1.0) for act in acts], session.recipe, 0)


@fault("acts of an older version of the weights", "ConfigError", "stopped", "step")
def older_version(world):
    updated(world, lambda act: replace(act, policy_version=-1))


@fault("log-probs that drift apart during a run", "NumericsError", "stopped", "step")
def drift(world):
    updated(world, lambda act: replace(act, log_probs=act.log_probs - 0.2))
