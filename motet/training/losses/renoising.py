"""Denoising acts as flow-matching targets, whichever process holds their images."""

from __future__ import annotations

from motet.core.protocols import RandomKey
from motet.core.trajectory import DenoisingSteps
from motet.distributed.shared_groups import is_remote, remote_copy
from motet.policies import diffusion


def renoise(act: DenoisingSteps, key: RandomKey) -> DenoisingSteps:
    """The act's final image at a noise level and with noise of the key: one action, without log-probs."""
    if is_remote(act):
        return remote_copy(act, stochastic=(True,), num_actions=1, log_probs=None, behaviour_gap=None)
    return diffusion.renoise(act, key)
