"""A policy that is a Python object or that a user's function creates, in place of a checkpoint."""

from __future__ import annotations

from typing import Any

from motet.config import PolicyConfig
from motet.core.errors import ConfigError
from motet.core.protocols import Policy
from motet.core.registry import registry


def python_policy(path: str, config: PolicyConfig | None) -> Policy:
    """The policy at `package.module:name`, `file.py:name` or `python:name`: an object, or a function that takes a
    `PolicyConfig` and returns one.

    Raises ConfigError for anything else, and for settings of `policy`, which a ready object cannot take.
    """
    found: Any = registry("policy").find(path)
    settings = config or PolicyConfig(path=path)
    policy = found if isinstance(found, Policy) or not callable(found) else found(settings)
    if not isinstance(policy, Policy):
        missing = [name for name in _METHODS if not hasattr(policy, name)]
        raise ConfigError(
            f"policy.path={path!r} leads to a {type(policy).__name__}, which is not a policy: it has no "
            f"{', '.join(missing)}.",
            fix="give an object with the methods of motet.Policy, or a function that takes a PolicyConfig and returns "
            "such an object.",
        )
    ignored = sorted(settings.model_dump(exclude_defaults=True).keys() - {"path", "device"})
    if policy is found and ignored:
        raise ConfigError(
            f"policy.{ignored[0]} has no effect: policy.path={path!r} is a policy that is built already.",
            fix="remove the setting, or give a function that takes a PolicyConfig and returns the policy.",
        )
    return policy


_METHODS = ("version", "kinds", "act", "encode_targets", "replay", "num_tokens", "trainable", "save")
