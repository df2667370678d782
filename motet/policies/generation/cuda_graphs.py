"""Functions of static tensors as CUDA graphs; on other devices they are called as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import torch

WARM_UP = 2
"""Calls before the capture, on the stream of the capture: libraries choose kernels and allocate workspaces in them."""


class GraphRunner:
    """Calls functions that only change tensors in place, each key's always with the same tensors.

    On CUDA the first `WARM_UP` calls of a key run eagerly, the next one is captured, and from then on the graph is
    replayed: one launch instead of hundreds. The graphs share a memory pool, because no two run at once.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.captures = device, device.type == "cuda"
        self.graphs: dict[Hashable, Any] = {}
        self.calls: Counter[Hashable] = Counter()
        self.stream: Any = torch.cuda.Stream(device) if self.captures else None

    def __call__(self, key: Hashable, function: Callable[[], None]) -> None:
        """Do once what the function does."""
        self.calls[key] += 1
        if not self.captures:
            function()
        elif self.calls[key] <= WARM_UP:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self.stream):
                function()
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
        else:
            if key not in self.graphs:
                self.graphs[key] = self._capture(function)
            self.graphs[key].replay()

    def _capture(self, function: Callable[[], None]) -> Any:
        """The function's launches, recorded and not executed. Other threads may use the device meanwhile."""
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self.graphs.values())).pool() if self.graphs else None
        with torch.cuda.graph(graph, pool=pool, stream=self.stream, capture_error_mode="thread_local"):
            function()
        return graph
