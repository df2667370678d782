"""Rollouts ahead of their steps in the run's own process: a step is sampled before the one before it is trained on.

Meanwhile the rewards of the step before are computed on a thread (`motet.training.rollout_pipeline`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

from motet.core.protocols import TrainablePolicy
from motet.core.sampling import Sampling
from motet.training.remote_rollout import PendingRollout, Published, Snapshot
from motet.training.rollout import RolloutRequest, rollout_tracks


class LocalRollout:
    """What `RemoteRollout` does, by the policy that trains, at once."""

    def __init__(self, policy: TrainablePolicy) -> None:
        self.policy = policy

    def publish(self, policy: TrainablePolicy) -> Published:
        """The policy's present weights."""
        return Published(policy.version, None)

    def publish_snapshot(self, snapshot: Snapshot) -> Published:
        """Weights of an earlier version."""
        return Published(snapshot.version, snapshot)

    def start(
        self,
        weights: Published,
        requests: Sequence[RolloutRequest],
        num_generations: int,
        *,
        samplings: Mapping[str, Sampling],
        seed: int,
        step: int,
    ) -> PendingRollout:
        """The groups of each request, sampled now by the published weights."""
        began = time.monotonic()
        with _weights(self.policy, weights):
            groups = rollout_tracks(self.policy, requests, num_generations, samplings=samplings, seed=seed, step=step)
        pending = PendingRollout(Future(), time.monotonic() - began)
        pending.future.set_result(groups)
        return pending


@contextmanager
def _weights(policy: TrainablePolicy, weights: Published) -> Iterator[None]:
    """Inside, the policy has the published weights; only those of a resumed run are others than its own."""
    if weights.version == policy.version:
        yield
        return
    own = Snapshot.of(policy)
    _load(policy, weights.reference)
    try:
        yield
    finally:
        _load(policy, own)


def _load(policy: TrainablePolicy, snapshot: Snapshot) -> None:
    policy.version = snapshot.version
    snapshot.load_into(policy)
