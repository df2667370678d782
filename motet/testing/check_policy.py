"""The contract of a policy in executable form: every built-in policy is held to it, and so is anyone's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from motet.core.conversation import Conversation
from motet.core.errors import ConfigError
from motet.core.trajectory import Sampling
from motet.testing.clauses import CLAUSES
from motet.testing.examples import Examples, default_contexts, default_samplings, default_targets
from motet.testing.report import ClauseResult, PolicyContractError, PolicyReport

TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.1}
"""How far two log-probs that must be equal may be apart, by the coarsest type that the policy computes in."""


def check_policy(
    policy: Any,
    *,
    contexts: Mapping[str, Sequence[Conversation]] | None = None,
    targets: Mapping[str, Sequence[Any]] | None = None,
    samplings: Mapping[str, Mapping[str, Sampling]] | None = None,
    load: Callable[[Path], Any] | None = None,
    tolerance: float | None = None,
    unused: Collection[str] = (),
    waive: Mapping[str, str] | None = None,
) -> PolicyReport:
    """Check a policy against `motet.core.protocols.Policy`; raises PolicyContractError with what is violated.

    Works on any object with the protocol's methods, without pytest. Afterwards the policy is as it was, but for its
    reference weights. `contexts`, `targets` (texts or images of a dataset) and `samplings` (by a name of your choice;
    the first, which must be supported, is the plain one) replace the defaults of single act kinds. Whatever `samplings`
    the policy rejects with a MotetError counts as not supported. `load` is given the folder that `save` wrote; without
    it saving is not checked. `tolerance` bounds the difference of log-probs that must be equal; by default 1e-4, in
    bfloat16 0.1. `unused` are patterns of trainable parameters that the example contexts do not use. `waive` names
    clauses that are not to be checked, each with the reason.
    """
    waived = dict(waive or {})
    unknown = set(waived) - {clause.name for clause in CLAUSES}
    if unknown:
        raise ConfigError(
            f"check_policy(waive=...) names {sorted(unknown)}, which are not clauses.",
            fix=f"use {', '.join(clause.name for clause in CLAUSES)}.",
        )
    kinds = list(policy.kinds)
    examples = Examples(
        policy,
        {kind: (contexts or {}).get(kind) or default_contexts() for kind in kinds},
        {kind: (samplings or {}).get(kind) or default_samplings(kind) for kind in kinds},
        {kind: (targets or {}).get(kind) or default_targets(kind) for kind in kinds},
        load,
        default_tolerance(policy) if tolerance is None else tolerance,
        unused,
    )
    results = [
        ClauseResult(clause.name, "not checked", f"waived: {waived[clause.name]}")
        if clause.name in waived
        else clause.result(examples)
        for clause in CLAUSES
    ]
    report = PolicyReport(type(policy).__name__, tuple(results))
    if report.violations:
        raise PolicyContractError(report)
    return report


def default_tolerance(policy: Any) -> float:
    """By the coarsest of the policy's compute types and the types of what trains."""
    compute = [getattr(policy, "autocast", None), getattr(policy, "rollout_autocast", None)]
    types = [dtype for dtype in compute if dtype is not None]
    types += [parameter.dtype for parameter in policy.trainable().values()]
    return max((TOLERANCES.get(dtype, 0.1) for dtype in types), default=TOLERANCES[torch.float32])
