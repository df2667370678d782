"""How often a replay runs each module must be the same in all processes once weights are sharded.

A module with sharded weights gathers them from all processes when it starts. Code that decides by its own acts how many
forward passes to run asks here what the others need; outside such a replay it is answered with its own value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")


def _alone(value: Any) -> list[Any]:
    return [value]


_all_gather: ContextVar[Callable[[Any], list[Any]]] = ContextVar("all_gather", default=_alone)


def from_all_processes(value: T) -> list[T]:
    """Every process's value, by rank, in a replay with sharded weights; else this process's alone."""
    return _all_gather.get()(value)


@contextmanager
def same_passes(all_gather: Callable[[Any], list[Any]]) -> Iterator[None]:
    """Inside, all processes replay micro-batches of the same kind at the same time, and agree by `all_gather`."""
    token = _all_gather.set(all_gather)
    try:
        yield
    finally:
        _all_gather.reset(token)
