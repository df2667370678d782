"""An image-only diffusion policy: a diffusion generator with its trainable parts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import nn

from motet.config import LoraConfig
from motet.core.errors import ConfigError
from motet.core.protocols import Replay, Request
from motet.core.trajectory import Act, DenoisingSteps, Sampling
from motet.policies.diffusion.generator import DiffusionGenerator
from motet.policies.diffusion.models.lora import ATTENTION, add_adapters, has_adapters
from motet.policies.interactive import InteractiveMixin
from motet.policies.trainable import ReferenceWeights, check_not_adapted, set_trainable


class DiffusionPolicy(InteractiveMixin):
    """Implements `motet.core.protocols.TrainablePolicy` for denoising acts.

    `parts` are the modules that may train, by the names that `policy.train` uses. `rollout_batch` images are generated
    at once, None: all of a call.
    """

    kinds: frozenset[str] = frozenset({"denoising"})

    def __init__(
        self, generator: DiffusionGenerator, parts: Mapping[str, nn.Module], *, rollout_batch: int | None = None
    ) -> None:
        self.generator, self.parts = generator, dict(parts)
        self.rollout_batch = rollout_batch
        self.version = 0
        self._reference: ReferenceWeights | None = None

    def act(self, requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        """Generate images, in the order of the requests. A context that several share is encoded once."""
        _check_kinds(requests)
        return self.generator.act(requests, sampling, self.rollout_batch, self.version) if requests else []

    def encode_targets(self, requests: Sequence[Request], targets: Sequence[Any]) -> list[Act]:
        """The acts of the targets, which are images."""
        _check_kinds(requests)
        return self.generator.encode_targets(requests, targets) if requests else []

    def reconstruct(self, images: Sequence[Image.Image]) -> list[tuple[Image.Image, Image.Image]]:
        """Each image as the autoencoder gets it, and its reconstruction: see `ReconstructingPolicy`."""
        return self.generator.reconstruct(images) if images else []

    def replay(self, acts: Sequence[Act], needs: Collection[str] = ()) -> list[Replay]:
        """Log-probs under the current weights, with gradient; offers what `motet.policies.diffusion.replay_log_probs`
        does.
        """
        _check_kinds(acts)
        return self.generator.replay([cast(DenoisingSteps, act) for act in acts], needs) if acts else []

    def num_tokens(self, act: Act) -> int:
        """Tokens of the act's replay: those of every step and branch, and of its context."""
        return self.generator.conditioner.num_tokens(cast(DenoisingSteps, act))

    def train_parts(self, names: Sequence[str]) -> None:
        """Choose what trains; everything else is frozen. Raises ConfigError for an unknown part.

        Adapters stay as they are, and the transformer's weights cannot train beside them.
        """
        parts = self.parts
        if self.has_lora:
            check_not_adapted([name for name in names if name == "transformer"], "policy.diffusion.lora")
            parts = {name: part for name, part in parts.items() if name != "transformer"}
        set_trainable(parts, names)
        if self.autocast is None:
            self.parts["transformer"].float()  # what trains is float32, and without autocast all must be of one type

    @property
    def has_lora(self) -> bool:
        """Whether there are adapters in the transformer, in place of whose weights they train."""
        return has_adapters(self.parts["transformer"])

    def add_lora(self, config: LoraConfig) -> None:
        """Train adapters on linear layers of the transformer in place of its weights.

        The default `target_modules`, which are a language model's, mean the transformer's attention.
        """
        chosen = config.target_modules
        if chosen == LoraConfig.model_fields["target_modules"].default:
            chosen = ATTENTION
        add_adapters(self.parts["transformer"], rank=config.rank, alpha=config.alpha, target_modules=chosen)

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the transformer's activations in the backward pass instead of keeping them."""
        self.parts["transformer"].enable_gradient_checkpointing()  # type: ignore[operator]  # diffusers' own

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters as `part.name`."""
        return {
            f"{part}.{name}": parameter
            for part, module in self.parts.items()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }

    def freeze_reference(self) -> None:
        """Remember the present weights as the reference of the KL; of adapters these alone are copied."""
        self._reference = ReferenceWeights(self.trainable())

    @property
    def references(self) -> list[ReferenceWeights]:
        """See `motet.policies.sharding.ShardablePolicy`."""
        return [] if self._reference is None else [self._reference]

    def shard_units(self) -> list[nn.Module]:
        """The transformer's blocks: the members of its lists of modules."""
        lists = [child for child in self.parts["transformer"].children() if isinstance(child, nn.ModuleList)]
        return [block for blocks in lists for block in blocks]

    def pass_key(self, act: Act) -> str:
        """All acts go through the transformer together, in batches of equal shapes."""
        return "denoising"

    def free_sampler(self) -> None:
        """Nothing is derived from the weights in order to sample."""

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the policy answers with the reference's weights, without gradient."""
        if self._reference is None:
            raise RuntimeError("freeze_reference() was never called")
        with self._reference.active():
            yield

    @property
    def autocast(self) -> torch.dtype | None:
        """Compute type of forward passes, None: the weights' own."""
        return self.generator.autocast

    @property
    def rollout_autocast(self) -> torch.dtype | None:
        """Compute type of sampling: a denoising step is sampled by the same forward pass as it is replayed."""
        return self.generator.autocast

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return self.generator.device

    def save(self, folder: Path) -> None:
        """The denoiser alone, as diffusers loads it; the policy around it saves the rest."""
        self.generator.denoiser.save(folder)


def _check_kinds(items: Sequence[Request] | Sequence[Act]) -> None:
    others = sorted({item.kind for item in items} - {"denoising"})
    if others:
        raise ConfigError(
            f"A diffusion policy performs acts of kind 'denoising', not {', '.join(map(repr, others))}.",
            fix="use a scenario that only generates images, or a language model with policy.diffusion.path beside it.",
        )
