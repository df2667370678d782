"""Memory of tensors in use, counted tensor by tensor on any device: what a run of some code adds, and its peak."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of tensors that are made inside, until their storage is freed, backward passes included.

    `live` is their sum now, `peak` its largest value. What a single operation allocates for itself is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = {value.untyped_storage()._cdata for value in tree_leaves((args, kwargs)) if torch.is_tensor(value)}
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if torch.is_tensor(value) and value.untyped_storage()._cdata not in given | self._known:  # else a view
                self._add(value.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key, size)  # a storage's Python object lives as long as its memory

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
