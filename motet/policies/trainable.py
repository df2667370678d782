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
from motet.policies.shards import full_data, is_sharded, local_data
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
    present = {name: _unswapped(parameter) for name, parameter in policy.trainable().items()}
    with policy.reference():  # in here the parameters hold the reference's own numbers
        for name, parameter in policy.trainable().items():
            local_data(parameter).mul_(1.0 - alpha).add_(present[name], alpha=alpha)


def _unswapped(parameter: nn.Parameter) -> Tensor:
    """The present weights, whatever `ReferenceWeights` puts in their place."""
    return local_data(parameter).clone() if is_sharded(parameter) else parameter.data


def reference_weights(policy: TrainablePolicy) -> dict[str, Tensor]:
    """The reference's copies of what trains, by name: what a checkpoint holds once the reference has moved."""
    with policy.reference():
        return {name: parameter.detach().clone() for name, parameter in policy.trainable().items()}


def restore_reference(policy: TrainablePolicy, weights: Mapping[str, Tensor]) -> None:
    """Put `reference_weights` back."""
    with policy.reference():
        for name, parameter in policy.trainable().items():
            local_data(parameter).copy_(local_data(weights[name]))


class ReferenceWeights:
    """The weights a run started from, for the KL: a copy of the trainable parameters, swapped in while it is asked.

    Of sharded parameters the copy is sharded too. `mix_into_reference` writes to the copies.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = dict(parameters)
        self.start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        self._active = False

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside, the policy has its starting weights, and `start` its present ones; no gradients."""
        if not self._active:
            self._swap()
        outer, self._active = self._active, True
        try:
            with torch.no_grad():
                yield
        finally:
            self._active = outer
            if not outer:
                self._swap()

    @contextmanager
    def gathered(self, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """Inside, `active` swaps whole weights: `parameters` stand in the modules instead of the sharded ones.

        A collective, which all processes call at the same time.
        """
        sharded = self.parameters, self.start
        whole = {name: full_data(start) for name, start in self.start.items()}
        self.parameters, self.start = {name: parameters[name] for name in whole}, whole
        try:
            yield
        finally:
            self.parameters, self.start = sharded

    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            if is_sharded(parameter):  # in place: see `local_data`
                present, start = local_data(parameter), local_data(self.start[name])
                kept = present.clone()
                present.copy_(start)
                start.copy_(kept)
            else:
                parameter.data, self.start[name] = self.start[name], parameter.data
