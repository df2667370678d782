"""Base class for policies around one transformers model: what trains, LoRA, the reference, the compute type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from motet.config import LoraConfig
from motet.core.trajectory import Act
from motet.policies.generation.adapter import LanguageModelAdapter
from motet.policies.generation.chat_template import ChatTemplateEncoder
from motet.policies.interactive import InteractiveMixin
from motet.policies.lora import is_identity, wrap
from motet.policies.trainable import (
    ReferenceWeights,
    check_not_adapted,
    enable_gradient_checkpointing,
    require_parts,
    set_trainable,
)


class TransformersPolicy(InteractiveMixin):
    """A `...ForConditionalGeneration` of transformers; `adapter` names its language model and what can train.

    `autocast` is the compute type of learning's forward passes, `rollout_autocast` that of sampling; None: float32, but
    frozen weights that are stored in another type are sampled from under `autocast`. `rollout_batch` sequences are
    sampled at once; None: as many as are asked for.
    """

    adapter: LanguageModelAdapter
    encoder: ChatTemplateEncoder

    def __init__(
        self,
        model: Any,
        *,
        autocast: torch.dtype | None,
        rollout_autocast: torch.dtype | None,
        rollout_batch: int | None,
    ) -> None:
        self.wrapped = model  # a peft model when adapters train, else the model itself
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.autocast, self.rollout_autocast = autocast, rollout_autocast
        self.rollout_batch = rollout_batch
        self.version = 0
        self._sampler: Any = None  # what a policy derived from the present weights in order to sample
        self._reference: ReferenceWeights | None = None
        self.model.eval()

    def readable_prompt(self, act: Act) -> str:
        """The context of an act as the model read it: the template's tokens, and images as how many they are."""
        return self.encoder.readable(act.encoding.ids.tolist())

    @property
    def has_lora(self) -> bool:
        """Whether LoRA adapters replace full fine-tuning."""
        return self.wrapped is not self.model

    @property
    def backbone_trains(self) -> bool:
        """Whether anything trains that hidden states come from: all but the language head."""
        return any(parameter.requires_grad for parameter in self.model.model.parameters())

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What can train, by the names that `policy.train` uses."""
        return self.adapter.parts

    def train_parts(self, names: Sequence[str]) -> None:
        """Choose what trains; everything else is frozen. Raises ConfigError for an unknown part.

        Adapters stay as they are, and no part can train beside them: the model is saved as its adapter alone.
        """
        if self.has_lora:
            require_parts(self.parts, names)
            check_not_adapted(names, "policy.lora")
            return
        set_trainable(self.parts, names)
        if self.autocast is None:
            self.model.float()  # what trains is float32, and without autocast all must be of one type
        self._sampler = None

    def add_lora(self, config: LoraConfig) -> None:
        """Train adapters on the language model's linear layers in place of weights."""
        self.wrapped = wrap(self.model, self.adapter.language_model, config)
        self._sampler = None

    def enable_gradient_checkpointing(self) -> None:
        """Compute the language model's activations again in the backward pass instead of keeping them."""
        enable_gradient_checkpointing(self.adapter.language_model)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def freeze_reference(self) -> None:
        """Remember the present weights as the reference of the KL.

        Fresh adapters need no copy: they are switched off. A loaded adapter is copied, because the run starts from it.
        """
        trained = self.trainable()  # nothing, where a loaded adapter is frozen
        fresh = bool(trained) and self.has_lora and is_identity(self.wrapped)
        self._reference = None if fresh else ReferenceWeights(trained)

    @property
    def references(self) -> list[ReferenceWeights]:
        """See `motet.policies.sharding.ShardablePolicy`."""
        return [] if self._reference is None else [self._reference]

    def shard_units(self) -> list[nn.Module]:
        """The language model's layers; see `motet.policies.sharding.ShardablePolicy`."""
        return list(self.adapter.language_model.layers)

    def pass_key(self, act: Act) -> str:
        """All acts go through one forward pass of the language model."""
        return "language"

    def free_sampler(self) -> None:
        """Forget what was derived from the present weights in order to sample."""
        self._sampler = None

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the policy answers with the reference's weights, without gradient."""
        if self._reference is None and not self.has_lora:
            raise RuntimeError("freeze_reference() was never called")
        swapped = self.wrapped.disable_adapter() if self._reference is None else self._reference.active()
        self._sampler = None  # one copy at a time: it is large, and made again quickly
        try:
            with swapped, torch.no_grad():
                yield
        finally:
            self._sampler = None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.adapter.device

    def _autocasting(self) -> Any:
        return _autocast(self.device, self.autocast)

    def _rollout_autocasting(self) -> Any:
        dtype = self.rollout_autocast
        if dtype is None and any(parameter.dtype != torch.float32 for parameter in self.model.parameters()):
            dtype = self.autocast  # what is frozen stays as stored, and products of two types need autocast
        return _autocast(self.device, dtype)


def _autocast(device: torch.device, dtype: torch.dtype | None) -> Any:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
