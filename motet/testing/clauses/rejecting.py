"""Clauses of what a policy cannot do: it says so with a MotetError, which names a fix, before it does anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from motet.core.act_kinds import ACT_KINDS
from motet.core.conversation import user
from motet.core.errors import MotetError
from motet.core.protocols import Request
from motet.testing.clauses.base import Clause
from motet.testing.examples import Examples
from motet.testing.report import Violation

IMPOSSIBLE: dict[str, tuple[dict[str, Any], ...]] = {
    "tokens": ({"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}, {"min_p": 2.0}),
    "text": ({"max_tokens": 0},),
    "denoising": (
        {"num_steps": 0},
        {"noise_level": -1.0},
        {"sde_window": (9, 1)},
        {"sde_type": "cps", "noise_level": 1.5},
    ),
}


def other_kinds_are_rejected(examples: Examples) -> Iterator[Violation]:
    """Requests of a kind that `kinds` does not name are rejected, and so are calls of `act` that mix kinds."""
    kinds: list[Any] = [*examples.kinds]
    for kind in [known for known in ACT_KINDS.entries if known not in kinds]:
        request = Request(kind, "act", user("a red circle"), (1,))
        yield from _rejects(
            f"act() of a {kind!r} request, a kind that policy.kinds does not name,",
            lambda request=request: examples.policy.act([request], examples.plain(kinds[0])),
        )
    if len(kinds) > 1:
        requests = [examples.requests(kind)[0] for kind in kinds[:2]]
        yield from _rejects(
            f"act() of requests of two kinds, {kinds[0]!r} and {kinds[1]!r},",
            lambda: examples.policy.act(requests, examples.plain(kinds[0])),
        )


def impossible_settings_are_rejected(examples: Examples) -> Iterator[Violation]:
    """Sampling settings outside their range are rejected, by `Sampling` itself or by `act`."""
    for kind in examples.kinds:
        cases = [*IMPOSSIBLE.get(kind, ()), *(() if kind == "denoising" else IMPOSSIBLE["tokens"])]
        for changes in cases:
            settings = ", ".join(f"{name}={value!r}" for name, value in changes.items())
            yield from _rejects(
                f"act() of {kind!r} requests with {settings}",
                lambda kind=kind, changes=changes: examples.act(kind, replace(examples.plain(kind), **changes)),
            )


def _rejects(what: str, call: Callable[[], Any]) -> Iterator[Violation]:
    fix = "raise a MotetError (ConfigError, ContextError, DataError) that names the value and a fix."
    try:
        call()
    except MotetError as error:
        if not error.fix:
            yield Violation(f"{what} raised {type(error).__name__} without a fix.", fix)
    except Exception as error:  # whatever the policy raises
        yield Violation(f"{what} raised {type(error).__name__}: {str(error)[:200]}", fix)
    else:
        yield Violation(f"{what} was performed.", fix)


REJECTING = (
    Clause("other kinds are rejected", other_kinds_are_rejected),
    Clause("impossible settings are rejected", impossible_settings_are_rejected),
)
