"""The losses by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from motet.core.registry import Registry
from motet.training.losses.base import Loss

LOSSES: Registry[type[Loss[Any]]] = Registry("loss", key="algorithm.loss")

L = TypeVar("L", bound=type[Loss[Any]])


def register(name: str) -> Callable[[L], L]:
    """Let recipes call a loss class by this name."""

    def add(loss: L) -> L:
        LOSSES.add(name, loss)
        return loss

    return add
