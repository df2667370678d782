"""Equality of a device to the CPU, in float32, on the smallest checkpoint of the repository."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from motet.config import PolicyConfig, Recipe, parse_recipe
from motet.core.conversation import user
from motet.core.task import Task
from motet.core.trajectory import Act, ActWithAdvantage, Group, Trajectory
from motet.policies.loading import load_policy
from motet.training.policy_update import update
from motet.training.setup import build_optimizer

if TYPE_CHECKING:
    from motet.experiments.gpu_parts import Check

PROMPTS = ("two red circles", "a blue square left of a green triangle", "three yellow circles", "one red square")
SAME_ACTS, LOG_PROB_GAP, UPDATE_GAP = 0.9, 1e-3, 0.05
"""At least this share of acts is the same token by token (where two logits are nearly equal, rounding may choose, and
the rest of the act differs); log-probs of the same acts differ by at most this; and the changes of the weights by one
optimizer step by this share of their norm: AdamW's first step divides gradients by themselves, noise included."""


def check_equality(check: Check) -> dict[str, Any]:
    """Sampled tokens, replayed log-probs and one update, on the device and on the CPU.

    The device's policy samples by the static engine, the CPU's by the eager one, as they do by default.
    """
    source = check.root / "checkpoints" / "shapes_janus"
    torch.backends.cudnn.allow_tf32 = False  # convolutions may use it by default; products may not
    cpu, other = (_load(str(source), device) for device in ("cpu", str(check.device)))
    other.static_cache = True
    return compare_policies(cpu, other)


def compare_policies(cpu: Any, other: Any) -> dict[str, Any]:
    """What two policies of the same weights sample, replay and learn; both are changed by an optimizer step."""
    sampled = {f"{kind}_{how}": (_sample(cpu, kind, how), _sample(other, kind, how)) for kind, how in _WAYS}
    same = {name: _share_same(*pair) for name, pair in sampled.items()}
    acts = [act for name, (ours, _) in sampled.items() for act in ours if name.endswith("noise")]
    gap = max(float((a - b).abs().max()) for a, b in zip(cpu.log_probs(acts), other.log_probs(acts), strict=True))
    moved = [_update(policy, acts) for policy in (cpu, other)]
    change = float((moved[0] - moved[1]).norm() / moved[0].norm())
    return {
        "passed": min(same.values()) >= SAME_ACTS and gap <= LOG_PROB_GAP and change <= UPDATE_GAP,
        "share_of_same_acts": same,
        "largest_log_prob_difference": gap,
        "relative_difference_of_update": change,
        "bounds": {"same_acts": SAME_ACTS, "log_prob": LOG_PROB_GAP, "update": UPDATE_GAP},
    }


_WAYS = [(kind, how) for kind in ("image", "text") for how in ("greedy", "noise")]


def _load(source: str, device: str) -> Any:
    settings = PolicyConfig(path=source, device=device, dtype="float32", rollout_dtype="float32")
    return load_policy(source, settings)


def _sample(policy: Any, kind: str, how: str) -> list[Act]:
    count, temperature = (1, 0.0) if how == "greedy" else (4, 1.0)
    if kind == "image":
        return policy.generate_images(PROMPTS, n=count, temperature=temperature)
    prompts = [user(f"describe {prompt}") for prompt in PROMPTS]
    return policy.generate_text(prompts, n=count, max_tokens=24, temperature=temperature)


def _share_same(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    return sum(torch.equal(a.ids, b.ids) for a, b in zip(ours, theirs, strict=True)) / len(ours)


def _update(policy: Any, acts: Sequence[Act]) -> Tensor:
    """One optimizer step on these acts, with advantages that alternate; how the weights moved, as one vector."""
    recipe = _recipe()
    before = {name: value.detach().cpu().clone() for name, value in policy.trainable().items()}
    optimizer = build_optimizer(recipe, policy, policy.kinds)
    tasks = [Task(number, {}) for number in range(len(acts))]
    groups = [Group(task, (Trajectory(task, (act,)),)) for task, act in zip(tasks, acts, strict=True)]
    assigned = [ActWithAdvantage(act, 1.0 - 2.0 * (number % 2)) for number, act in enumerate(acts)]
    update(policy, optimizer, groups, assigned, recipe, 0)
    return torch.cat([(value.detach().cpu() - before[name]).flatten() for name, value in policy.trainable().items()])


def _recipe() -> Recipe:
    return parse_recipe(
        {
            "policy": {"path": "none", "dtype": "float32", "rollout_dtype": "float32"},
            "scenario": "generate_and_answer",
            "data": {"source": "shapes"},
            "algorithm": {"beta": 0.02},
            "optimizer": {"learning_rate": 1e-4},
            "run": {"steps": 1},
        }
    )
