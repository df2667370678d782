"""What the tiny step may not change: put back when it is over."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from motet.training.setup import TrainingSetup
from motet.training.weights_digest import modules_of, named_parameters


@contextmanager
def restored(session: TrainingSetup) -> Iterator[None]:
    """Inside, anything may draw random numbers and add gradients. Afterwards these are as before: the states of all
    global generators, gradients (none), the modes of modules, the policy's version and what the optimizer counts.

    All noise of motet is keyed; rewards and scenarios of users may use global generators.
    """
    policy, optimizer = session.policy, session.optimizer
    python, array, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    modes = [(m, m.training) for top in modules_of(policy).values() for m in top.modules()]
    version, received = policy.version, optimizer.received_gradient
    try:
        yield
    finally:
        optimizer.free_gradients()
        for _, parameter in named_parameters(policy):
            parameter.grad = None
        for module, training in modes:
            module.training = training
        policy.version, optimizer.received_gradient = version, received
        random.setstate(python)
        np.random.set_state(array)
        torch.set_rng_state(cpu)
        if gpu:
            torch.cuda.set_rng_state_all(gpu)
