"""A policy without a model, for tests of whatever plays, scores or trains: fast, scripted, deterministic by key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Parameter

from motet.core.conversation import Conversation
from motet.core.errors import ConfigError, ContextError
from motet.core.protocols import RandomKey, Replay, Request
from motet.core.trajectory import Act, DenoisingSteps, Encoding, ImageTokens, Sampling, TextTokens

END = 256
"""The end-of-sequence id; the ids below it are bytes of UTF-8."""
CODES = 16
"""Codes of the image vocabulary; an image is four times the same one, a solid colour."""


def number_of(key: RandomKey) -> int:
    """A number that depends on the key alone."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=7).digest(), "big")


def colour_of(code: int) -> tuple[int, int, int]:
    """The colour that a code paints."""
    return 85 * (code % 4), 85 * (code // 4), 128


class FakePolicy:
    """Generates scripted text and solid images, and scores both with a unigram model that really trains.

    `writes` is a function of the request, or texts to choose from by the request's key; `draws` a function from the
    request to a code below 16. Without them both follow the key. The log-prob of an action is that of its id under one
    learnable categorical distribution per kind, whatever the context; a denoising step is a unit Gaussian around the
    state plus a learnable drift, its log-density averaged over the latent. Ratios are 1 on policy.
    Contexts of more than `max_context` characters raise ContextError. `calls` holds the kind and the requests of every
    `act`, `prefills` how many different contexts each of them had.
    """

    def __init__(
        self,
        *,
        kinds: Collection[str] = ("text", "image"),
        writes: Callable[[Request], str] | Sequence[str] | None = None,
        draws: Callable[[Request], int] | None = None,
        max_context: int | None = None,
        side: int = 8,
    ) -> None:
        self.version = 0
        self.calls: list[tuple[str, tuple[Request, ...]]] = []
        self.prefills: list[int] = []
        self._kinds, self._writes, self._draws = frozenset(kinds), writes, draws
        self._max_context, self._side = max_context, side
        self._logits: dict[str, Parameter] = {
            "text": Parameter(torch.zeros(END + 1)),
            "image": Parameter(torch.zeros(CODES)),
        }
        self._drift = Parameter(torch.zeros(()))

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that it was made with."""
        return self._kinds

    def act(self, requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        """Perform requests of one kind. Raises ContextError before it performs any."""
        if not requests:
            return []
        if len(kinds := {request.kind for request in requests}) > 1 or not kinds <= self.kinds:
            raise ConfigError(
                f"One call asked FakePolicy for acts of kinds {sorted(kinds)}; it performs {sorted(self.kinds)}.",
                fix="ask for one of its kinds at a time.",
            )
        encodings = self._encode(requests)
        self.calls.append((requests[0].kind, tuple(requests)))
        self.prefills.append(len(encodings))
        perform = {"text": self._write, "image": self._draw, "denoising": self._denoise}[requests[0].kind]
        return [perform(request, encodings[request.context], sampling) for request in requests]

    def encode_targets(self, requests: Sequence[Request], targets: Sequence[Any]) -> list[Act]:
        """Acts that the dataset gives: text as its bytes, an image as the code of its colour."""
        encodings, acts = self._encode(requests), []
        for request, target in zip(requests, targets, strict=True):
            shared = self._shared(request, encodings[request.context], Sampling(), None)
            if request.kind == "text":
                acts.append(TextTokens(ids=_spell(target), text=target, finished=True, **shared))
            elif request.kind == "image":
                red, green, _ = target.resize((1, 1)).getpixel((0, 0))
                code = round(red / 85) + 4 * round(green / 85)
                acts.append(ImageTokens(ids=torch.full((4,), code), image=target, **shared))
            else:
                raise ConfigError(
                    "FakePolicy cannot encode targets of denoising acts.", fix="use kinds text and image."
                )
        return acts

    def replay(self, acts: Sequence[Act], needs: Collection[str] = ()) -> list[Replay]:
        """Log-probs under the current parameters, with gradient; extras `entropy`, or `mean` and `std` of steps."""
        return [self._replay(act, needs) for act in acts]

    def num_tokens(self, act: Act) -> int:
        """Characters of the context plus actions."""
        return len(act.context.text) + act.num_actions

    def trainable(self) -> dict[str, Parameter]:
        """All three parameters."""
        return {"text": self._logits["text"], "image": self._logits["image"], "drift": self._drift}

    def save(self, folder: Path) -> None:
        """Write the parameters to `fake_policy.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: p.detach().clone() for name, p in self.trainable().items()}, folder / "fake_policy.safetensors"
        )

    def _encode(self, requests: Sequence[Request]) -> dict[Conversation, Encoding]:
        contexts = dict.fromkeys(request.context for request in requests)
        for context in contexts:
            if self._max_context is not None and len(context.text) > self._max_context:
                raise ContextError(
                    f"A context has {len(context.text)} characters; the limit is {self._max_context}.",
                    fix="shorten the prompt.",
                )
        return {context: Encoding(torch.tensor([*context.text.encode()], dtype=torch.long)) for context in contexts}

    def _shared(
        self, request: Request, encoding: Encoding, sampling: Sampling, log_probs: Float[Tensor, "N"] | None
    ) -> dict[str, Any]:
        return {
            "name": request.name,
            "context": request.context,
            "encoding": encoding,
            "sampling": sampling,
            "log_probs": log_probs,
            "behaviour_log_probs": log_probs if sampling.guidance == "conditional" else None,
            "trained": request.trained,
            "policy_version": self.version,
        }

    def _write(self, request: Request, encoding: Encoding, sampling: Sampling) -> TextTokens:
        number = number_of(request.key)
        if self._writes is None:
            text = f"word {number % 100}"
        else:
            text = self._writes(request) if callable(self._writes) else self._writes[number % len(self._writes)]
        ids = _spell(text)[: sampling.max_tokens]
        finished = int(ids[-1]) == END
        said = bytes(ids[: len(ids) - finished].tolist()).decode(errors="ignore")
        shared = self._shared(request, encoding, sampling, self._score("text", ids, sampling).detach())
        return TextTokens(ids=ids, text=said, finished=finished, **shared)

    def _draw(self, request: Request, encoding: Encoding, sampling: Sampling) -> ImageTokens:
        code = self._code(request)
        ids = torch.full((4,), code)
        shared = self._shared(request, encoding, sampling, self._score("image", ids, sampling).detach())
        return ImageTokens(ids=ids, image=self._paint(code), **shared)

    def _denoise(self, request: Request, encoding: Encoding, sampling: Sampling) -> DenoisingSteps:
        noise = torch.randn(
            (sampling.num_steps + 1, 3, 2, 2), generator=torch.Generator().manual_seed(number_of(request.key))
        )
        states = noise.cumsum(dim=0) + self._drift.detach() * torch.arange(len(noise)).view(-1, 1, 1, 1)
        stochastic = (sampling.temperature > 0,) * sampling.num_steps
        log_probs = self._score_steps(states, stochastic).detach()
        return DenoisingSteps(
            states=states,
            times=torch.linspace(1.0, 0.0, len(states)),
            stochastic=stochastic,
            image=self._paint(self._code(request)),
            **self._shared(request, encoding, sampling, log_probs),
        )

    def _code(self, request: Request) -> int:
        return number_of(request.key) % CODES if self._draws is None else self._draws(request)

    def _paint(self, code: int) -> Image.Image:
        return Image.new("RGB", (self._side, self._side), colour_of(code))

    def _score(self, kind: str, ids: Int[Tensor, "N"], sampling: Sampling) -> Float[Tensor, "N"]:
        return torch.log_softmax(self._logits[kind] / sampling.scoring_temperature, dim=-1)[ids]

    def _score_steps(self, states: Float[Tensor, "S1 C H W"], stochastic: tuple[bool, ...]) -> Float[Tensor, "N"]:
        mean = states[:-1] + self._drift
        log_probs = torch.distributions.Normal(mean, 1.0).log_prob(states[1:]).mean(dim=(1, 2, 3))
        return log_probs[torch.tensor(stochastic)]

    def _replay(self, act: Act, needs: Collection[str]) -> Replay:
        if isinstance(act, DenoisingSteps):
            mean = (act.states[:-1] + self._drift)[torch.tensor(act.stochastic)]
            offers = {"mean": mean, "std": torch.ones(act.num_actions)}
            return Replay(
                self._score_steps(act.states, act.stochastic), {name: offers[name] for name in needs if name in offers}
            )
        assert isinstance(act, TextTokens | ImageTokens)
        logits = torch.log_softmax(self._logits[act.kind] / act.sampling.scoring_temperature, dim=-1)
        entropy = -(logits.exp() * logits).sum().expand(act.num_actions)
        return Replay(self._score(act.kind, act.ids, act.sampling), {"entropy": entropy} if "entropy" in needs else {})


def _spell(text: str) -> Int[Tensor, "N"]:
    return torch.tensor([*text.encode(), END], dtype=torch.long)
