"""Protocols of policies and rewards: any object with these methods is one; no base class is needed."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import Parameter

from motet.core.conversation import Conversation
from motet.core.sampling import Sampling
from motet.core.trajectory import Act, ImageAct, TextAct

RandomKey = tuple[int, ...]
"""Key of a stream of random numbers: (seed, step, task, generation, act). Equal keys give equal noise in any batch."""


Prompt = str | Conversation
"""A user's prompt, or a whole conversation."""


@dataclass(frozen=True)
class Request:
    """A scenario's request for one act.

    `drop_prompt`: encode a target without its prompt, as in the unconditional branch of guidance; `drop_source_image`:
    for an edit by denoising, without its source image.
    """

    kind: str
    name: str
    context: Conversation
    key: RandomKey
    trained: bool = True
    drop_prompt: bool = False
    drop_source_image: bool = False


@dataclass(frozen=True)
class Replay:
    """An act's log-probs under the current weights, with gradient, and the quantities that losses need, by name.

    `extras["entropy"]` is `[N]`; a flow step offers `mean`, `std` and `velocity`.
    """

    log_probs: Float[Tensor, "N"]
    extras: Mapping[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Policy(Protocol):
    """A model that generates acts and recomputes their log-probs."""

    @property
    def version(self) -> int:
        """Incremented by every optimizer step; acts record the version that sampled them."""
        ...

    @version.setter
    def version(self, value: int) -> None: ...

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of act that this policy can generate."""
        ...

    def act(self, requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        """Generate the acts of requests of one kind, in order; identical contexts are prefilled once."""
        ...

    def encode_targets(self, requests: Sequence[Request], targets: Sequence[Any]) -> list[Act]:
        """Encode a dataset's targets (one text or image per request) as acts without log-probs, for SFT."""
        ...

    def replay(self, acts: Sequence[Act], needs: Collection[str] = ()) -> list[Replay]:
        """Log-probs of the acts' scoring distributions under the current weights, with gradient."""
        ...

    def num_tokens(self, act: Act) -> int:
        """Number of tokens of a replay of the act, which limits micro-batches."""
        ...

    def trainable(self) -> dict[str, Parameter]:
        """The trainable parameters by name."""
        ...

    def save(self, folder: Path) -> None:
        """Write a checkpoint that the library's own `from_pretrained` and `motet.load_policy` load."""
        ...


@runtime_checkable
class TrainablePolicy(Policy, Protocol):
    """A policy that reinforcement learning can update."""

    @property
    def autocast(self) -> torch.dtype | None:
        """Compute type of forward passes; None: the weights' own. See `motet.training.policy_update` on its
        effect on old log-probs.
        """
        ...

    @property
    def rollout_autocast(self) -> torch.dtype | None:
        """Compute type of sampling; None: the weights' own."""
        ...

    def freeze_reference(self) -> None:
        """Store the current weights as the reference of the KL."""
        ...

    def reference(self) -> AbstractContextManager[None]:
        """Context in which replay uses the reference weights, without gradient."""
        ...


@runtime_checkable
class InteractivePolicy(Policy, Protocol):
    """A policy that a notebook or the command line can call with plain strings and images."""

    def generate_images(
        self, prompts: Prompt | Sequence[Prompt], n: int = 1, *, seed: int = 0, **sampling: Any
    ) -> list[ImageAct]:
        """`n` images for each prompt, in prompt order; keywords as in `Sampling`."""
        ...

    def generate_text(
        self,
        prompts: Prompt | Sequence[Prompt],
        images: Image.Image | Sequence[Image.Image] | None = None,
        n: int = 1,
        *,
        seed: int = 0,
        **sampling: Any,
    ) -> list[TextAct]:
        """`n` texts for each prompt, in prompt order, each about its image if `images` are given."""
        ...

    def log_probs(self, acts: Sequence[Act]) -> list[Tensor]:
        """Log-probs `[N]` of each act under the current weights, without gradient."""
        ...


@runtime_checkable
class ReadablePolicy(Policy, Protocol):
    """A policy that shows people its prompts: for `motet data`."""

    def readable_prompt(self, act: Act) -> str:
        """The context of an act as the model was given it: the template's tokens, and how many an image has."""
        ...


@dataclass(frozen=True, eq=False)
class Features:
    """A conversation in the policy's own feature space: the language model's last hidden states, float32.

    `spans[k]` are the positions of the conversation's k-th part (an image's tokens, a text's tokens), in order.
    """

    hidden: Float[Tensor, "T D"]
    spans: tuple[range, ...]


@runtime_checkable
class FeaturePolicy(Policy, Protocol):
    """A policy that provides its features, for rewards that compare in feature space (token matching)."""

    def features(self, conversations: Sequence[Conversation]) -> list[Features]:
        """Features of each conversation under the current weights, without gradient; one forward pass."""
        ...


@runtime_checkable
class ReconstructingPolicy(Policy, Protocol):
    """A policy that generates images through an image tokenizer or an autoencoder, which limits their quality."""

    def reconstruct(self, images: Sequence[Image.Image]) -> list[tuple[Image.Image, Image.Image]]:
        """Each image as the input of the tokenizer (cropped and resized to the model's size), and its reconstruction.

        Both RGB, of equal size.
        """
        ...


@runtime_checkable
class WeightedReward(Protocol):
    """A reward with its weight and the names of the acts that it is assigned to."""

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float: ...

    @property
    def acts(self) -> tuple[str, ...]: ...


class RewardFunction(Protocol):
    """TRL's reward signature, sync or async.

    `prompts` and `completions` are chats, one per trajectory; every dataset column arrives as a keyword argument, a
    list with one entry per trajectory. None means that the reward does not apply. A parameter named `policy` receives
    the policy, bound once before the run (`motet.rewards.base`).
    """

    def __call__(
        self, prompts: list[Any], completions: list[Any], **columns: list[Any]
    ) -> list[float | None] | Awaitable[list[float | None]]: ...
