"""Clauses of training: what receives gradient, that it is the right one, updates, and the reference weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import Parameter

from motet.core.errors import MotetError
from motet.core.trajectory import Act
from motet.testing.clauses.base import Clause
from motet.testing.examples import Examples, NotChecked, largest_difference
from motet.testing.report import Violation

STEP_CHANGE = 0.02
"""By how much a step along the gradient changes the sum of log-probs when the gradient is checked."""
GRADIENT_TOLERANCE = 0.05
"""Relative error of that change."""
PERTURBATION = 0.02
"""Standard deviation of the noise that stands for an optimizer step."""


def trainable_is_what_trains(examples: Examples) -> Iterator[Violation]:
    """The gradient of log-probs reaches every trainable parameter and nothing else; what trains is float32."""
    named = _trainable(examples)
    coarse = [name for name, parameter in named.items() if parameter.dtype not in (torch.float32, torch.float64)]
    if coarse:
        yield Violation(
            f"{len(coarse)} trainable parameters are of type {named[coarse[0]].dtype}, {coarse[0]!r} is one.",
            "convert what trains to float32: smaller types lose small updates.",
        )
    ours = {id(parameter) for parameter in named.values()}
    reached: set[str] = set()
    for kind in examples.kinds:
        total = _total(examples, _acts_for_gradient(examples, kind))
        if not total.requires_grad:
            continue
        strangers = [leaf for leaf in _leaves(total) if id(leaf) not in ours]
        if strangers:
            shapes = ", ".join(str(tuple(leaf.shape)) for leaf in strangers[:3])
            yield Violation(
                f"The gradient of {kind} acts reaches {len(strangers)} tensors that trainable() does not name, of "
                f"shapes {shapes}.",
                "freeze them (requires_grad_(False)), or name them in trainable().",
            )
        gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
        for name, gradient in zip(named, gradients, strict=True):
            if gradient is None:
                continue
            reached.add(name)
            if not bool(gradient.isfinite().all()):
                yield Violation(f"{kind}: the gradient of {name!r} is not finite.", "look for a division by zero.")
    missed = [name for name in named if name not in reached]
    missed = [name for name in missed if not any(fnmatch.fnmatch(name, pattern) for pattern in examples.unused)]
    if missed:
        yield Violation(
            f"{len(missed)} of {len(named)} trainable parameters receive no gradient from acts of any kind: "
            f"{', '.join(missed[:4])}{', ...' if len(missed) > 4 else ''}.",
            "freeze them, do not detach what they compute, or name them in check_policy(unused=...) if the examples do "
            "not use them.",
        )


def gradient_is_that_of_log_probs(examples: Examples) -> Iterator[Violation]:
    """A small step along the gradient changes the sum of log-probs by step x gradient (central difference)."""
    named = _trainable(examples)
    checked = False
    for kind in examples.kinds:
        acts = _acts_for_gradient(examples, kind)
        total = _total(examples, acts)
        if not total.requires_grad:
            continue
        gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
        norm = torch.stack([g.double().square().sum() for g in gradients if g is not None]).sum().sqrt()
        if norm < 1e-6:
            continue
        checked = True
        size = STEP_CHANGE / float(norm)
        directions = [None if g is None else g / float(norm) for g in gradients]
        with torch.no_grad(), _restored(named):
            values: list[float] = []
            for sign in (1.0, -2.0):
                for parameter, direction in zip(named.values(), directions, strict=True):
                    if direction is not None:
                        parameter.add_(direction, alpha=sign * size)
                values.append(sum(float(v.double().sum()) for v in examples.log_probs(acts)))
        change, expected = values[0] - values[1], 2 * STEP_CHANGE
        noise = 4 * examples.tolerance
        if abs(change - expected) > GRADIENT_TOLERANCE * expected + noise:
            yield Violation(
                f"{kind}: a step along the gradient changes the log-probs by {change:.4g}, but the gradient says "
                f"{expected:.4g}.",
                "do not detach or cache anything that depends on trainable parameters in replay.",
            )
    if not checked:
        raise NotChecked("the gradient of acts of all kinds is zero.")


def sampling_follows_updates(examples: Examples) -> Iterator[Violation]:
    """After the weights and `version` changed, samples are scored, replayed and marked as of the new weights."""
    named, policy = _trainable(examples), examples.policy
    before = {kind: examples.act(kind) for kind in examples.kinds}
    old = {kind: examples.log_probs(acts) for kind, acts in before.items()}
    with updated(examples):
        changed = False
        for kind in examples.kinds:
            changed = changed or largest_difference(examples.log_probs(before[kind]), old[kind]) > 0
            acts = examples.act(kind)
            sampled = [act.log_probs for act in acts if act.log_probs is not None]
            difference = largest_difference(examples.log_probs(acts), sampled)
            if difference > examples.tolerance:
                yield Violation(
                    f"{kind}: after an update, replayed log-probs differ from the sampled ones by {difference:.3g}.",
                    "derive what sampling uses from the present weights: whatever is cached is stale once `version` "
                    "has grown.",
                )
            if acts[0].policy_version != policy.version:
                yield Violation(
                    f"{kind}: policy_version is {acts[0].policy_version} while policy.version is {policy.version}.",
                    "copy policy.version into each act.",
                )
        if not changed:
            yield Violation(
                f"No log-prob changed although all {len(named)} trainable parameters did.",
                "compute replay from the parameters that trainable() returns.",
            )


def version_counts_updates(examples: Examples) -> Iterator[Violation]:
    """`version` can be set, and neither acting nor replaying changes it."""
    policy = examples.policy
    start = policy.version
    for kind in examples.kinds:
        examples.log_probs(examples.act(kind))
    if policy.version != start:
        yield Violation(
            f"version grew from {start} to {policy.version} while acts were sampled and replayed.",
            "leave version to the optimizer.",
        )
    policy.version = start + 1
    if policy.version != start + 1:
        yield Violation(f"version is {policy.version} after it was set to {start + 1}.", "store what is assigned.")
    policy.version = start


def reference_is_where_it_was_frozen(examples: Examples) -> Iterator[Violation]:
    """Inside `reference()` replay has the weights of `freeze_reference()`; after it, also after an error, the own."""
    policy = examples.policy
    if not hasattr(policy, "freeze_reference") or not hasattr(policy, "reference"):
        raise NotChecked("the policy has no reference: it is a Policy, not a TrainablePolicy.")
    acts = {kind: examples.act(kind) for kind in examples.kinds}
    frozen = {kind: examples.log_probs(own) for kind, own in acts.items()}
    policy.freeze_reference()
    with updated(examples) as named:
        current = {name: parameter.detach().clone() for name, parameter in named.items()}
        for kind, own in acts.items():
            present = examples.log_probs(own)
            with policy.reference():
                replays = examples.replay(own)
            inside = [replay.log_probs.detach().cpu() for replay in replays]
            difference = largest_difference(inside, frozen[kind])
            if difference > examples.tolerance:
                yield Violation(
                    f"{kind}: inside reference() log-probs are {difference:.3g} from those at freeze_reference().",
                    "copy the trainable parameters in freeze_reference() and use the copies inside reference().",
                )
            if any(replay.log_probs.requires_grad for replay in replays):
                yield Violation(f"{kind}: inside reference() log-probs have gradient.", "use torch.no_grad() inside.")
            after = largest_difference(examples.log_probs(own), present)
            if after > examples.tolerance:
                yield Violation(
                    f"{kind}: after reference() log-probs differ by {after:.3g} from those before it.",
                    "restore the weights, and drop what was derived from the reference.",
                )
        try:
            with policy.reference():
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        moved = [name for name, p in policy.trainable().items() if name not in current or not p.equal(current[name])]
        if moved or len(policy.trainable()) != len(current):
            yield Violation(
                f"After an interrupt inside reference(), {len(moved)} trainable parameters are not as they were.",
                "restore them in a `finally`.",
            )


@contextmanager
def updated(examples: Examples) -> Iterator[Mapping[str, Parameter]]:
    """Inside, every trainable parameter has changed a little, as by an optimizer step; restored bit for bit."""
    named, policy = _trainable(examples), examples.policy
    generator = torch.Generator().manual_seed(5)
    start = policy.version
    with _restored(named):
        with torch.no_grad():
            for parameter in named.values():
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.add_(PERTURBATION * noise)
        policy.version = start + 1
        try:
            yield named
        finally:
            policy.version = start + 2  # the weights change back: nothing derived from them holds
    policy.version = start


@contextmanager
def _restored(named: Mapping[str, Parameter]) -> Iterator[None]:
    start = {name: parameter.detach().clone() for name, parameter in named.items()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(start[name])


def _trainable(examples: Examples) -> dict[str, Parameter]:
    named = dict(examples.policy.trainable())
    if not named:
        raise NotChecked("trainable() is empty: choose parts that train first.")
    return named


def _acts_for_gradient(examples: Examples, kind: str) -> list[Act]:
    """Sampled acts, and targets where the policy encodes them."""
    try:
        return examples.act(kind) + examples.encode_targets(kind)
    except MotetError:
        return examples.act(kind)


def _total(examples: Examples, acts: list[Act]) -> Tensor:
    return torch.stack([replay.log_probs.sum() for replay in examples.replay(acts)]).sum()


def _leaves(total: Tensor) -> list[Tensor]:
    """The tensors to which autograd would add a gradient."""
    found: dict[int, Tensor] = {}
    seen, waiting = set(), [total.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            found[id(variable)] = variable
        waiting += [following for following, _ in node.next_functions]
    return list(found.values())


TRAINING = (
    Clause("trainable is what trains", trainable_is_what_trains),
    Clause("the gradient is that of the log-probs", gradient_is_that_of_log_probs),
    Clause("version counts updates", version_counts_updates),
    Clause("sampling follows updates", sampling_follows_updates),
    Clause("the reference is where it was frozen", reference_is_where_it_was_frozen),
)
