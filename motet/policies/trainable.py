"""Which parameters train: parts by name, activation checkpointing, and the frozen reference."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from motet.config import LoraConfig
from motet.core.errors import ConfigError
from motet.core.protocols import InteractivePolicy, ReadablePolicy, TrainablePolicy
from motet.core.registry import did_you_mean
from motet.policies.versions import enable_activation_checkpointing


@runtime_checkable
class LoadedPolicy(TrainablePolicy, InteractivePolicy, ReadablePolicy, Protocol):
    """What `motet.load_policy` opens: a policy that can be called by hand, and told which parts of it train."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        ...

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What can train, by the names that `policy.train` uses."""
        ...

    @property
    def has_lora(self) -> bool:
        """Whether LoRA adapters replace full fine-tuning."""
        ...

    def train_parts(self, names: Sequence[str]) -> None:
        """Choose what trains; everything else is frozen. Raises ConfigError for an unknown part."""
        ...

    def add_lora(self, config: LoraConfig) -> None:
        """Train adapters on linear layers in place of weights."""
        ...

    def enable_gradient_checkpointing(self) -> None:
        """Compute activations again in the backward pass instead of keeping them."""
        ...


def require_parts(parts: Collection[str], chosen: Sequence[str]) -> None:
    """Raise ConfigError for a name that is not a part's."""
    for name in chosen:
        if name not in parts:
            raise ConfigError(
                f"policy.train names a part {name!r} that this model does not have; its parts are: "
                f"{', '.join(parts)}.{did_you_mean(name, parts)}",
                fix="name parts of the model in policy.train.",
            )


def check_not_adapted(names: Sequence[str], key: str) -> None:
    """Raise ConfigError for parts that cannot train, because there are adapters by the setting `key` in their place."""
    if names:
        raise ConfigError(
            f"policy.train names {names[0]!r}, which cannot train beside the adapters of {key}.",
            fix="leave it out of policy.train, or begin with a checkpoint without an adapter.",
        )


def set_trainable(parts: Mapping[str, nn.Module], chosen: Sequence[str]) -> None:
    """Let the parameters of the chosen parts train, in float32, and freeze all others; see `require_parts`.

    A parameter that two parts share (tied embeddings) trains if either is chosen.
    """
    require_parts(parts, chosen)
    for part in parts.values():
        part.requires_grad_(False)
    for name in chosen:
        for parameter in parts[name].parameters():
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()


def enable_gradient_checkpointing(model: Any) -> None:
    """Let the backward pass of a transformers model compute its layers' activations again instead of keeping them.

    transformers does so in training mode only. Only the layers' own flags are set: what is inside them stays in
    evaluation mode, without dropout.
    """
    enable_activation_checkpointing(model)
    for layer in model.modules():
        if getattr(layer, "gradient_checkpointing", False):
            layer.training = True


def mix_into_reference(policy: TrainablePolicy, alpha: float) -> None:
    """Make the reference `alpha` x the present weights + (1 - `alpha`) x itself (TR-DPO, arXiv 2404.09656, eq. 5).

    The policy's reference must be a copy of what trains, which adapters' is not.
    """
    present = {name: parameter.data for name, parameter in policy.trainable().items()}
    with policy.reference():  # in here the parameters hold the reference's own tensors
        for name, parameter in policy.trainable().items():
            parameter.data.mul_(1.0 - alpha).add_(present[name], alpha=alpha)


def reference_weights(policy: TrainablePolicy) -> dict[str, Tensor]:
    """The reference's copies of what trains, by name: what a checkpoint holds once the reference has moved."""
    with policy.reference():
        return {name: parameter.detach().clone() for name, parameter in policy.trainable().items()}


def restore_reference(policy: TrainablePolicy, weights: Mapping[str, Tensor]) -> None:
    """Put `reference_weights` back."""
    with policy.reference():
        for name, parameter in policy.trainable().items():
            parameter.data.copy_(weights[name])


class ReferenceWeights:
    """The weights a run started from, for the KL: a copy of the trainable parameters, swapped in while it is asked.

    `mix_into_reference` writes to the copies.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = dict(parameters)
        self.start = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside, the policy has its starting weights; no gradients."""
        current = {name: parameter.data for name, parameter in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.data = self.start[name]
            with torch.no_grad():
                yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = current[name]
