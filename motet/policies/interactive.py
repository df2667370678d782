"""Calling a policy by hand: `generate_images`, `generate_text` and `log_probs`, from plain strings and images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from motet.core.act_kinds import Makes, act_kind, kinds_making
from motet.core.conversation import Conversation, user
from motet.core.errors import ConfigError, DataError
from motet.core.protocols import Prompt, Replay, Request
from motet.core.sampling import Sampling
from motet.core.trajectory import Act, ImageAct, TextAct


class InteractiveMixin:
    """What a person asks of a policy, in terms of what the engine asks of it (`act` and `replay`).

    The g-th answer to the k-th prompt draws its noise from `(seed, k, g)`: asking for more leaves the first ones as
    they were.
    """

    kinds: frozenset[str] = frozenset()

    def act(self, requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        raise NotImplementedError

    def readable_prompt(self, act: Act) -> str:
        """What an act's context was to the model, for people to read; here its words alone."""
        return act.context.text

    def replay(self, acts: Sequence[Act], needs: Collection[str] = ()) -> list[Replay]:
        raise NotImplementedError

    def generate_images(
        self, prompts: Prompt | Sequence[Prompt], n: int = 1, *, seed: int = 0, **sampling: Any
    ) -> list[ImageAct]:
        """Generate `n` images for each prompt, in prompt order; each act has `.image`. Keywords as in `Sampling`.

        A policy that denoises walks the ODE unless a `temperature` other than 0 asks for its stochastic steps.
        """
        return self._sample(self._kind_making("image"), _listed(prompts), n, seed, sampling)  # type: ignore[return-value]

    def generate_text(
        self,
        prompts: Prompt | Sequence[Prompt],
        images: Image.Image | Sequence[Image.Image] | None = None,
        n: int = 1,
        *,
        seed: int = 0,
        **sampling: Any,
    ) -> list[TextAct]:
        """Generate `n` texts for each prompt, each about its image if `images` are given; each act has `.text`."""
        asked = _listed(prompts)
        if images is not None:
            shown = [images] if isinstance(images, Image.Image) else list(images)
            if len(shown) != len(asked):
                raise DataError(f"{len(shown)} images for {len(asked)} prompts.", fix="give one image per prompt.")
            asked = [user(i, p) if isinstance(p, str) else user(i) + p for i, p in zip(shown, asked, strict=True)]
        return self._sample(self._kind_making("text"), asked, n, seed, sampling)  # type: ignore[return-value]

    @torch.no_grad()
    def log_probs(self, acts: Sequence[Act]) -> list[Tensor]:
        """Log-probs `[N]` of each act under the current weights, without gradient."""
        return [replayed.log_probs.cpu() for replayed in self.replay(acts)]

    def _kind_making(self, makes: Makes) -> str:
        """The first of the policy's kinds that makes a text, or an image. Raises ConfigError if it has none."""
        kinds = kinds_making(makes, self.kinds)
        if not kinds:
            raise ConfigError(
                f"The policy does not make {makes}s; it performs acts of the kinds: {', '.join(sorted(self.kinds))}.",
                fix="load a policy that does.",
            )
        return kinds[0]

    def _sample(self, kind: str, prompts: Sequence[Prompt], n: int, seed: int, changes: Mapping[str, Any]) -> list[Act]:
        record = act_kind(kind)
        sampling = record.sampling(**{**record.interactive, **changes})
        contexts = [user(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
        requests = [Request(kind, kind, context, (seed, k, g)) for k, context in enumerate(contexts) for g in range(n)]
        return self.act(requests, sampling)


def _listed(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    return [prompts] if isinstance(prompts, str | Conversation) else list(prompts)
