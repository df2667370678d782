"""A policy, a loss, a reward and a suite for motet, beside the kind of act. Imports no torch before they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import motet
from motet_masked_image.rewards import share_of_named_colour

motet.register("reward", "share_of_named_colour", share_of_named_colour)


@motet.register("policy", "masked_transformer")
def open_policy(spec: Any) -> Any:
    """The policy of a checkpoint folder whose config.json says so; `spec` is motet's LoadSpec."""
    from motet_masked_image.policy import load

    return load(Path(spec.source))


@motet.register("loss", "reinforce")
def reinforce(batch: Any) -> tuple[Any, dict[str, float]]:
    """REINFORCE: minus the mean over the step's actions of advantage times log-prob."""
    loss = -(batch.advantages * batch.log_probs).sum() / batch.counts.num_actions
    return loss, {"advantage_abs": float(batch.advantages.abs().sum())}


@motet.register("suite", "named_colours")
def named_colours(policy: Any, settings: Any, samples: int = 4) -> dict[str, float]:
    """The share of pixels of the named colour, per colour."""
    shares: dict[str, float] = {}
    for name in ("red", "blue"):
        acts = policy.generate_images(name, n=samples, seed=settings.recipe.eval.seed)
        chats = [[{"role": "assistant", "content": [{"type": "image", "image": act.image}]}] for act in acts]
        shares[name] = sum(share_of_named_colour([], chats, prompt=[name] * samples)) / samples
    return shares
