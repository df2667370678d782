"""Continuous batching over a static cache: a finished slot takes the next waiting sequence.

The host never waits for a token: whether slots have finished is copied to it beside the steps and read one look later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from motet.policies.generation.cuda_graphs import GraphRunner
from motet.policies.generation.decode_loop import STOP_CHECK_EVERY, Decoded, Separator, empty_decoded
from motet.policies.generation.static_cache import StaticCache
from motet.policies.generation.static_prefill import ContextStore
from motet.policies.generation.static_step import SlotState, StepModel, append, decode_step
from motet.policies.generation.token_listener import TokenListener, token_listener

DecodeStep = Callable[[StepModel, StaticCache, SlotState, int], None]

BUCKET = 256
"""Attention reads the cache up to the next multiple of so many columns: one graph for each multiple."""


@dataclass
class Occupant:
    """Which sequence is in a slot, how many tokens its longest row has at most, and the actions since it began."""

    sequence: int
    tokens: int
    actions: int = 0


class StaticEngine:
    """S slots of F rows each, decoded step by step; it can run again and again as long as its weights are good.

    `step` is `decode_step`, or a compiled version of it.
    """

    def __init__(
        self,
        model: StepModel,
        cache: StaticCache,
        slots: SlotState,
        *,
        separator: Separator | None = None,
        step: DecodeStep = decode_step,
        bucket: int = BUCKET,
    ) -> None:
        if separator is not None and model.stop_ids is not None:
            raise ValueError("Separators follow every n-th action of all slots: sequences that stop lose step.")
        self.model, self.cache, self.state = model, cache, slots
        self.separator, self.step, self.bucket = separator, step, bucket
        self.num_slots, self.num_actions = slots.ids.shape[0], slots.ids.shape[1] - 1
        self.branches = len(cache.columns) // self.num_slots
        self.graphs = GraphRunner(cache.columns.device)
        self.occupants: dict[int, Occupant] = {}

    @torch.no_grad()
    def run(
        self, contexts: ContextStore, keys: Sequence[tuple[Hashable, ...]], uniforms: Float[Tensor, "B N"]
    ) -> Decoded:
        """Decode sequence b from the F contexts `keys[b]` with noise `uniforms[b]`, whatever slot it gets."""
        self._begin(uniforms)
        waiting, flags = deque(range(len(keys))), FinishedFlags(self.num_slots, uniforms.device)
        every, listener = STOP_CHECK_EVERY.get(uniforms.device.type, 8), token_listener()
        self._fill(contexts, keys, waiting, uniforms)
        steps = 0
        while self.occupants:
            self._advance()
            steps += 1
            done = {slot for slot, occupant in self.occupants.items() if occupant.actions == self.num_actions}
            looking = self.model.stop_ids is not None and steps % every == 0
            if looking:
                done |= {slot for slot, sequence in flags.read() if self._holds(slot, sequence)}
            for slot in done:
                self._collect(slot)
            if done and waiting:
                self._fill(contexts, keys, waiting, uniforms)
            if looking:
                flags.submit(self.state.finished, {slot: one.sequence for slot, one in self.occupants.items()})
            if listener is not None and steps % every == 0:
                self._report(listener)
        return self.decoded

    def _report(self, listener: TokenListener) -> None:
        """Tell the listener what the slots have sampled that go on. This waits for the device."""
        finished, counts = self.state.finished.tolist(), self.state.counts.tolist()
        for slot, occupant in self.occupants.items():
            if not finished[slot]:
                listener(occupant.sequence, self.state.ids[slot, : counts[slot]])

    def _holds(self, slot: int, sequence: int) -> bool:
        return slot in self.occupants and self.occupants[slot].sequence == sequence

    def _begin(self, uniforms: Tensor) -> None:
        self.decoded = empty_decoded(uniforms, self.model.sampling)
        self.occupants.clear()
        self.state.finished.fill_(True)

    def _fill(
        self, contexts: ContextStore, keys: Sequence[tuple[Hashable, ...]], waiting: deque[int], uniforms: Tensor
    ) -> None:
        """Put waiting sequences into free slots; their contexts are prefilled together."""
        free = [slot for slot in range(self.num_slots) if slot not in self.occupants]
        pairs = [(slot, waiting.popleft()) for slot in free[: len(waiting)]]
        taken = iter(contexts.take([key for _, sequence in pairs for key in keys[sequence]]))
        for slot, sequence in pairs:
            own = [next(taken) for _ in range(self.branches)]
            self.cache.place(range(slot * self.branches, (slot + 1) * self.branches), own)
            self.state.restart(slot, uniforms[sequence])
            self.occupants[slot] = Occupant(sequence, max(context.length for context in own))

    def _advance(self) -> None:
        """One action of every slot, and the separator that follows it."""
        self._call("step", lambda width: self.step(self.model, self.cache, self.state, width))
        for occupant in self.occupants.values():
            occupant.tokens += 1
            occupant.actions += 1
        after = self.separator
        actions = next(iter(self.occupants.values())).actions
        if after is not None and actions < self.num_actions and actions % after.every == 0:
            vectors = after.vector.expand(len(self.cache.columns), -1)
            self._call("separator", lambda width: append(self.model, self.cache, self.state, vectors, width))
            for occupant in self.occupants.values():
                occupant.tokens += 1

    def _call(self, name: str, function: Callable[[int], None]) -> None:
        """Run a function of the width that attention has to read, which covers the column that it writes."""
        most = max(occupant.tokens for occupant in self.occupants.values()) + 1
        width = min(-(-most // self.bucket) * self.bucket, self.cache.capacity)
        self.graphs((name, width), lambda: function(width))

    def _collect(self, slot: int) -> None:
        """Hand over what a finished slot has sampled."""
        sequence = self.occupants.pop(slot).sequence
        self.decoded.ids[sequence].copy_(self.state.ids[slot, :-1])
        self.decoded.log_probs[sequence].copy_(self.state.log_probs[slot, :-1])
        self.decoded.lengths[sequence].copy_(self.state.counts[slot])
        if self.decoded.behaviour_log_probs is not None:
            self.decoded.behaviour_log_probs[sequence].copy_(self.state.behaviour[slot, :-1])


class FinishedFlags:
    """Which slots had finished at the last look. On CUDA the copy runs beside the steps, and no step is waited for."""

    def __init__(self, slots: int, device: torch.device) -> None:
        cuda = device.type == "cuda"
        host = torch.zeros(slots, dtype=torch.bool)
        self.host: Bool[Tensor, "S"] = host if device.type in ("cpu", "mps") else host.pin_memory()
        self.event: Any = torch.cuda.Event() if cuda else None
        self.sequences: dict[int, int] = {}

    def submit(self, finished: Bool[Tensor, "S"], sequences: dict[int, int]) -> None:
        """Ask for the flags as they are after the steps so far; `sequences` says which one is in which slot."""
        self.sequences = sequences
        self.host.copy_(finished, non_blocking=True)
        if self.event is not None:
            self.event.record()

    def read(self) -> list[tuple[int, int]]:
        """The slots that had finished when the flags were asked for, and the sequences that were in them."""
        if self.event is not None:
            self.event.synchronize()
        finished = self.host.tolist()
        return [(slot, sequence) for slot, sequence in self.sequences.items() if finished[slot]]
