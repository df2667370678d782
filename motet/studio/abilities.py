"""Which tasks of the page a policy can do."""

from __future__ import annotations

from motet.core.protocols import Policy
from motet.policies.diffusion.policy import DiffusionPolicy
from motet.scenarios import Scenario, resolve_scenario

TASKS: dict[str, tuple[str, ...]] = {
    "generate": ("text_to_image",),
    "ask": ("answer",),
    "edit": ("edit", "refine_edit"),
    "reflect": (
        *("reflect", "regenerate", "think_then_generate", "refine_prompt"),
        *("tokens_then_flow", "think_tokens_then_flow"),
    ),
}
"""The tasks of the page, and the scenarios that each offers."""
_IMAGE_TO_IMAGE = ("edit", "refine_edit", "reflect", "regenerate")
"""Scenarios that generate an image from a context with an image."""


def scenarios_of(task: str, policy: Policy) -> list[str]:
    """The scenarios of a task that the policy can perform; none: the policy cannot do the task."""
    return [name for name in TASKS[task] if _can_perform(policy, resolve_scenario(name))]


def _can_perform(policy: Policy, scenario: Scenario) -> bool:
    kinds = {act: scenario.kind_of(act, policy.kinds) for act in scenario.acts}
    if None in kinds.values():
        return False
    if scenario.name in _IMAGE_TO_IMAGE and "denoising" in kinds.values():
        denoising = getattr(policy, "image_policy", policy)
        return not isinstance(denoising, DiffusionPolicy) or denoising.generator.denoiser.edits
    return True
