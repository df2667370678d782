"""The shapes world's reward: does the picture show what the prompt asked for? It reads decoded pixels, not tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from motet.errors import ConfigError
from motet.rewards.base import reward
from motet.rewards.pixels import last_picture


@reward("shapes", options={"partial": (True, False)})
def shapes(
    prompts: list[Any],
    completions: list[Any],
    spec: list[Mapping[str, Any] | None],
    partial: Any = 0.0,
    **_: Any,
) -> list[float | None]:
    """Whether the last picture shows exactly what its `spec` asks for, by the shapes world's strict checker.

    1 or 0; with `partial` p in [0, 1] it is `(1 - p) * correct + p * partial score`. None for rows without a spec.
    """
    from motet.shapes.check import check_drawing

    if isinstance(partial, bool) or not isinstance(partial, int | float) or not 0.0 <= partial <= 1.0:
        raise ConfigError(f"rewards.options.partial={partial!r} of 'shapes' is not in [0, 1].", fix="use e.g. 0.3.")
    values: list[float | None] = []
    for completion, wanted in zip(completions, spec, strict=True):
        if wanted is None or not completion:
            values.append(None)
            continue
        verdict = check_drawing(last_picture(completion, "shapes"), wanted)
        values.append((1.0 - partial) * float(verdict.correct) + partial * float(verdict.partial))
    return values
