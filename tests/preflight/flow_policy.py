"""The smallest policy that denoises, for recipes."""

from typing import Any

from tests.flow_expert import FlowExpert


def flow_policy(config: Any) -> FlowExpert:
    """A new one."""
    return FlowExpert()
