"""Load a served reward: resolved as in a recipe, with its model on the device of choice."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import torch

from motet.config.schema import RewardConfig
from motet.core.errors import ConfigError, MotetError, RewardError
from motet.core.registry import first_line
from motet.rewards.base import BoundReward, ModelReward, bind_policy
from motet.rewards.no_policy import NoPolicy
from motet.rewards.remote.protocol import ServedRewardInfo
from motet.rewards.resolving import resolve
from motet.serving.rewards_config import ServedReward

LOGS = ("log_metric", "log_extra")


@dataclass(frozen=True)
class LoadedReward:
    """A reward that can be called. `logs`: it takes log_metric or log_extra by name; requests for it are not joined,
    as what it logs is about one call."""

    reward: BoundReward
    info: ServedRewardInfo
    logs: bool


def resolve_served(served: ServedReward) -> LoadedReward:
    """The reward with its options checked and nothing loaded yet. Raises ConfigError."""
    bound = resolve(RewardConfig(name=served.name, options=served.options), None, None)
    if bound.needs_policy:
        raise ConfigError(
            f"Reward {served.name!r} uses the policy that is trained, and cannot be served.",
            fix="use it in the recipe.",
        )
    if "trainer_state" in bound.required:
        raise ConfigError(
            f"Reward {served.name!r} requires trainer_state, which a server does not have.",
            fix="give the argument a default, or use the reward in the recipe.",
        )
    signature = inspect.signature(bound.function).parameters if callable(bound.function) else {}
    return LoadedReward(bound, _info(served, bound), any(name in signature for name in LOGS))


def load_models(loaded: LoadedReward, device: str) -> None:
    """Load the models of a reward onto a device. Raises MotetError."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device={device!r} of reward {loaded.reward.name!r} cannot be used: {str(error).splitlines()[0]}",
            fix="use auto, cpu, or the name of a GPU of this machine, such as cuda:0.",
        ) from error
    try:
        bind_policy([loaded.reward], NoPolicy(device))
    except MotetError:
        raise
    except Exception as error:  # libraries raise errors of any type
        raise RewardError(
            f"Reward {loaded.reward.name!r} cannot be loaded: {first_line(error)}.", fix="see the traceback."
        ) from error


def _info(served: ServedReward, bound: BoundReward) -> ServedRewardInfo:
    documented = type(bound.function) if isinstance(bound.function, ModelReward) else bound.function
    return ServedRewardInfo(
        name=served.route,
        required_columns=list(bound.required_columns),
        accepts=None if bound.accepts is None else sorted(bound.accepts),
        reads_acts=list(bound.reads_acts),
        info=(inspect.getdoc(documented) or "").split("\n")[0],
    )
