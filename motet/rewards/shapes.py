"""The shapes world's reward: does the picture show what the prompt asked for? It reads decoded pixels, not tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from motet.errors import ConfigError, RewardError
from motet.rewards.base import reward


@reward("shapes", options=("partial",))
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
        verdict = check_drawing(last_picture(completion), wanted)
        values.append((1.0 - partial) * float(verdict.correct) + partial * float(verdict.partial))
    return values


def last_picture(completion: list[Any]) -> Image.Image:
    """The last picture of a completion. Raises RewardError when it has none."""
    for message in reversed(completion):
        for part in reversed(message["content"] if isinstance(message["content"], list) else []):
            if part.get("type") == "image":
                return part["image"]
    raise RewardError(
        "Reward 'shapes' was shown a completion without a picture.", fix="name a drawing act in rewards.acts."
    )
