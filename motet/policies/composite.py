"""Several policies as one: each performs the kinds of act that it can; they may share weights and train together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from motet.config import LoraConfig
from motet.core.protocols import Replay, Request
from motet.core.trajectory import Act, Sampling
from motet.policies.interactive import InteractiveMixin
from motet.policies.trainable import require_parts


class CompositePolicy(InteractiveMixin):
    """Implements `motet.core.protocols.TrainablePolicy` over members that do; no two of them name a part or parameter
    alike.

    `members`: which policy performs which kind of act; one policy may perform several.
    """

    def __init__(self, members: Mapping[str, Any]) -> None:
        self.members = dict(members)
        self.kinds = frozenset(self.members)

    @property
    def distinct(self) -> list[Any]:
        """The members, each once."""
        return list({id(member): member for member in self.members.values()}.values())

    @property
    def writer(self) -> Any:
        """The member that writes: a language model."""
        return self.members["text"]

    @property
    def drawer(self) -> Any:
        """The member that draws by denoising."""
        return self.members["denoising"]

    def act(self, requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        """Perform requests of one kind, in order."""
        return self.members[requests[0].kind].act(requests, sampling) if requests else []

    def encode_targets(self, requests: Sequence[Request], targets: Sequence[Any]) -> list[Act]:
        """The acts that demonstrate the targets."""
        return self._each(requests, lambda member, own: member.encode_targets(*_chosen(own, requests, targets)))

    def reconstruct(self, images: Sequence[Image.Image]) -> list[tuple[Image.Image, Image.Image]]:
        """As the member does it that draws first: image tokens where there are any."""
        return self.members.get("image", self.drawer).reconstruct(images)

    def as_seen(self, act: Act) -> str:
        """As the member does it that performed the act."""
        return self.members[act.kind].as_seen(act)

    def replay(self, acts: Sequence[Act], needs: Collection[str] = ()) -> list[Replay]:
        """Log-probs under the current weights, with gradient; acts of each member in one call."""
        return self._each(acts, lambda member, own: member.replay(*_chosen(own, acts), needs))

    def num_tokens(self, act: Act) -> int:
        """Tokens that replaying the act costs."""
        return self.members[act.kind].num_tokens(act)

    @property
    def version(self) -> int:
        """Grows by one with every optimizer step."""
        return self.distinct[0].version

    @version.setter
    def version(self, value: int) -> None:
        for member in self.distinct:
            member.version = value

    @property
    def autocast(self) -> torch.dtype | None:
        """Compute type of forward passes: the members' common one."""
        return self.distinct[0].autocast

    @property
    def rollout_autocast(self) -> torch.dtype | None:
        """Compute type of sampling tokens: the language model's."""
        return self.distinct[0].rollout_autocast

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What can train, by the names that `policy.train` uses."""
        return {name: part for member in self.distinct for name, part in member.parts.items()}

    def train_parts(self, names: Sequence[str]) -> None:
        """Choose what trains; everything else is frozen. Raises ConfigError for a part that no member has."""
        require_parts(self.parts, names)
        for member in self.distinct:
            member.train_parts([name for name in names if name in member.parts])

    def add_lora(self, config: LoraConfig) -> None:
        """Train adapters on the language model's linear layers in place of its weights; see `drawer` for its own."""
        self.writer.add_lora(config)

    def enable_gradient_checkpointing(self) -> None:
        """Compute activations again in the backward pass instead of keeping them, in every member."""
        for member in self.distinct:
            member.enable_gradient_checkpointing()

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name."""
        return {name: p for member in self.distinct for name, p in member.trainable().items()}

    def freeze_reference(self) -> None:
        """Remember the present weights of all members as the reference of the KL."""
        for member in self.distinct:
            member.freeze_reference()

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, all members answer with the reference's weights, without gradient."""
        with ExitStack() as stack:
            for member in self.distinct:
                stack.enter_context(member.reference())
            yield

    @property
    def device(self) -> torch.device:
        """Where the first member is."""
        return self.distinct[0].device

    def save(self, folder: Path) -> None:
        """A checkpoint; each kind of ensemble has its own layout."""
        raise NotImplementedError

    def _each(self, items: Sequence[Any], call: Any) -> list[Any]:
        """`call(member, positions)` for every member with items of its kinds, the results in the items' order."""
        found: dict[int, Any] = {}
        for member in self.distinct:
            own = [n for n, item in enumerate(items) if self.members[item.kind] is member]
            if own:
                found |= zip(own, call(member, own), strict=True)
        return [found[n] for n in range(len(items))]


def _chosen(places: Sequence[int], *lists: Sequence[Any]) -> list[list[Any]]:
    return [[items[n] for n in places] for items in lists]
