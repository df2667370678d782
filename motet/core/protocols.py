"""What motet asks of a policy and of a reward. Anything with these methods takes part; nothing inherits."""

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
from motet.core.trajectory import Act, ActKind, Sampling

RandomKey = tuple[int, ...]
"""Names one stream of random numbers: (seed, step, task, sibling, act). Equal keys give equal noise in any batch."""


@dataclass(frozen=True)
class Request:
    """One act that a scenario wants: of which kind, in which context, under which name.

    `drop_prompt`: a demonstration without its prompt, as in the unconditional branch of guidance;
    `drop_source_image`: of an edit by denoising, without the picture that it edits.
    """

    kind: ActKind
    name: str
    context: Conversation
    key: RandomKey
    trained: bool = True
    drop_prompt: bool = False
    drop_source_image: bool = False


@dataclass(frozen=True)
class Replay:
    """An act's log-probs under the current weights, with gradient, and what loss terms asked for by name.

    `extras["entropy"]` is `[N]`; a flow step offers `mean`, `std` and `velocity`.
    """

    log_probs: Float[Tensor, "N"]
    extras: Mapping[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Policy(Protocol):
    """A model that acts and can say how likely its acts were."""

    version: int
    """Grows by one with every optimizer step; acts remember the version that sampled them."""

    @property
    def kinds(self) -> frozenset[ActKind]:
        """The kinds of act that this policy can perform."""
        ...

    def act(self, requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        """Perform requests of one kind, in order; identical contexts are prefilled once."""
        ...

    def encode_targets(self, requests: Sequence[Request], targets: Sequence[Any]) -> list[Act]:
        """The acts that a dataset demonstrates (text or picture per request), without log-probs: for supervision."""
        ...

    def replay(self, acts: Sequence[Act], needs: Collection[str] = ()) -> list[Replay]:
        """Log-probs of the acts' scoring distributions under the current weights, with gradient."""
        ...

    def num_tokens(self, act: Act) -> int:
        """Tokens that replaying the act costs: what micro-batches are budgeted by."""
        ...

    def trainable(self) -> dict[str, Parameter]:
        """The parameters that train, by name."""
        ...

    def save(self, folder: Path) -> None:
        """Write a checkpoint that the library's own `from_pretrained` and `motet.load_policy` load."""
        ...


@runtime_checkable
class TrainablePolicy(Policy, Protocol):
    """A policy that reinforcement learning may update: what the loop asks beyond acting and replaying."""

    autocast: torch.dtype | None
    """Compute type of forward passes; None: the weights' own. See `motet.training.policy_update` on what it means for
    old log-probs.
    """
    rollout_autocast: torch.dtype | None
    """Compute type of sampling; None: the weights' own."""

    def freeze_reference(self) -> None:
        """Remember the present weights as the reference of the KL."""
        ...

    def reference(self) -> AbstractContextManager[None]:
        """Inside, replay answers with the reference's weights, without gradient."""
        ...


@dataclass(frozen=True, eq=False)
class Features:
    """A conversation in the policy's own feature space: the language model's last hidden states, float32.

    `spans[k]` are the positions of the conversation's k-th part (a picture's tokens, a text's tokens), in order.
    """

    hidden: Float[Tensor, "T D"]
    spans: tuple[range, ...]


@runtime_checkable
class FeaturePolicy(Policy, Protocol):
    """A policy that shows its features, for rewards that compare within them (token matching)."""

    def features(self, conversations: Sequence[Conversation]) -> list[Features]:
        """Features of each conversation under the current weights, without gradient; one forward pass."""
        ...


@runtime_checkable
class ReconstructingPolicy(Policy, Protocol):
    """A policy whose drawings come out of an image tokenizer or an autoencoder, and so can be no better than it is."""

    def reconstruct(self, images: Sequence[Image.Image]) -> list[tuple[Image.Image, Image.Image]]:
        """Of each picture what the tokenizer is shown (cut and resized to the model's size), and what it makes of it.

        RGB, both of one size.
        """
        ...


class RewardFunction(Protocol):
    """TRL's reward signature, sync or async.

    `prompts` and `completions` are chats, one per trajectory; every dataset column arrives as a keyword argument, a
    list with one entry per trajectory. None means that the reward does not apply. A function whose signature has a
    parameter called `policy` receives the policy there, bound once when the run is prepared (`motet.rewards.base`).
    """

    def __call__(
        self, prompts: list[Any], completions: list[Any], **columns: list[Any]
    ) -> list[float | None] | Awaitable[list[float | None]]: ...
