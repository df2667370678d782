"""A language model and a denoiser as one policy: each performs the kinds of act that it can; both may train."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import nn

from motet.config import LoraConfig
from motet.core.errors import CheckpointError
from motet.core.protocols import ReconstructingPolicy, Replay, Request
from motet.core.trajectory import Act, Sampling
from motet.core.write_errors import write_error
from motet.policies.diffusion.policy import DiffusionPolicy
from motet.policies.generation.policy import LanguageModelPolicy
from motet.policies.interactive import InteractiveMixin
from motet.policies.trainable import LoadedPolicy, ReferenceWeights, require_parts

EXPERTS_MODEL_TYPE = "motet_experts"
"""The `model_type` of a `LanguageModelPlusPipeline` in its config.json."""
LANGUAGE, PIPELINE = "language_model", "pipeline"

T = TypeVar("T")


class CompositePolicy(InteractiveMixin):
    """Implements `LoadedPolicy` over a language model, for text and image tokens, and a policy that denoises.

    Part and parameter names must be unique across both.
    """

    def __init__(self, text_policy: LanguageModelPolicy, image_policy: DiffusionPolicy) -> None:
        self.text_policy, self.image_policy = text_policy, image_policy
        self.members: tuple[LoadedPolicy, LoadedPolicy] = (text_policy, image_policy)
        self.kinds = text_policy.kinds | image_policy.kinds

    def act(self, requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        """Perform requests of one kind, in order."""
        return self._member_of(requests[0]).act(requests, sampling) if requests else []

    def encode_targets(self, requests: Sequence[Request], targets: Sequence[Any]) -> list[Act]:
        """The acts of a dataset."""
        return self._each(
            requests,
            lambda member, own: member.encode_targets([requests[n] for n in own], [targets[n] for n in own]),
        )

    def reconstruct(self, images: Sequence[Image.Image]) -> list[tuple[Image.Image, Image.Image]]:
        """By the image tokenizer where there is one, else by the denoiser's autoencoder."""
        first = self.text_policy if isinstance(self.text_policy, ReconstructingPolicy) else self.image_policy
        return first.reconstruct(images)

    def readable_prompt(self, act: Act) -> str:
        """As the member shows it that performed the act."""
        return self._member_of(act).readable_prompt(act)

    def replay(self, acts: Sequence[Act], needs: Collection[str] = ()) -> list[Replay]:
        """Log-probs under the current weights, with gradient; acts of each member in one call."""
        return self._each(acts, lambda member, own: member.replay([acts[n] for n in own], needs))

    def num_tokens(self, act: Act) -> int:
        """Tokens that replaying the act takes."""
        return self._member_of(act).num_tokens(act)

    @property
    def version(self) -> int:
        """Grows by one with every optimizer step."""
        return self.text_policy.version

    @version.setter
    def version(self, value: int) -> None:
        for member in self.members:
            member.version = value

    @property
    def autocast(self) -> torch.dtype | None:
        """Compute type of forward passes, which both share."""
        return self.text_policy.autocast

    @property
    def rollout_autocast(self) -> torch.dtype | None:
        """Compute type of sampling tokens."""
        return self.text_policy.rollout_autocast

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What can train, by the names that `policy.train` uses."""
        return {name: part for member in self.members for name, part in member.parts.items()}

    def train_parts(self, names: Sequence[str]) -> None:
        """Choose what trains; everything else is frozen. Raises ConfigError for an unknown part."""
        require_parts(self.parts, names)
        for member in self.members:
            member.train_parts([name for name in names if name in member.parts])

    @property
    def has_lora(self) -> bool:
        """Whether LoRA adapters replace full fine-tuning of the language model."""
        return self.text_policy.has_lora

    def add_lora(self, config: LoraConfig) -> None:
        """Train adapters on the language model's linear layers; see `image_policy` for the denoiser's."""
        self.text_policy.add_lora(config)

    def enable_gradient_checkpointing(self) -> None:
        """Compute activations again in the backward pass instead of keeping them, in both members."""
        for member in self.members:
            member.enable_gradient_checkpointing()

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name."""
        return {name: p for member in self.members for name, p in member.trainable().items()}

    def freeze_reference(self) -> None:
        """Remember the present weights of both members as the reference of the KL."""
        for member in self.members:
            member.freeze_reference()

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, both members answer with the reference's weights, without gradient."""
        with self.text_policy.reference(), self.image_policy.reference():
            yield

    @property
    def references(self) -> list[ReferenceWeights]:
        """Of both members; see `motet.policies.sharding.ShardablePolicy`."""
        return [*self.text_policy.references, *self.image_policy.references]

    def shard_units(self) -> list[nn.Module]:
        """Of both members."""
        return [*self.text_policy.shard_units(), *self.image_policy.shard_units()]

    def pass_key(self, act: Act) -> str:
        """Acts of one member share their forward passes."""
        return self.image_policy.pass_key(act) if act.kind == "denoising" else self.text_policy.pass_key(act)

    def free_sampler(self) -> None:
        """Of the language model."""
        self.text_policy.free_sampler()

    @property
    def device(self) -> torch.device:
        """Where the language model is."""
        return self.text_policy.device

    def save(self, folder: Path) -> None:
        """A checkpoint; each subclass has its own layout."""
        raise NotImplementedError

    def _member_of(self, item: Request | Act) -> LoadedPolicy:
        return self.image_policy if item.kind == "denoising" else self.text_policy

    def _each(
        self, items: Sequence[Request] | Sequence[Act], call: Callable[[LoadedPolicy, list[int]], list[T]]
    ) -> list[T]:
        """`call(member, positions)` for every member with items of its kinds, the results in the items' order."""
        found: dict[int, T] = {}
        for member in self.members:
            own = [n for n, item in enumerate(items) if self._member_of(item) is member]
            if own:
                found |= zip(own, call(member, own), strict=True)
        return [found[n] for n in range(len(items))]


class LanguageModelPlusPipeline(CompositePolicy):
    """A language model that rewrites prompts beside a diffusers pipeline (PromptRL, arXiv 2602.01382).

    They share no weight, and no gradient passes between them: what the language model generates reaches the pipeline as
    text. `policy.train` names parts of either, or of both.
    """

    def save(self, folder: Path) -> None:
        """`language_model/` (or its adapter) as transformers and peft load it, `pipeline/` as diffusers does."""
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.text_policy.save(folder / LANGUAGE)
            self.image_policy.save(folder / PIPELINE)
            config = {"model_type": EXPERTS_MODEL_TYPE}
            (folder / "config.json").write_text(json.dumps(config) + "\n", encoding="utf-8")
        except OSError as error:
            raise write_error(CheckpointError, repr(str(folder)), error) from error
