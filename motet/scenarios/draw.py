"""Draw what the row's prompt describes."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from motet.scenarios.base import Draw, scenario
from motet.task import Task


@scenario("draw", acts={"drawing": "image"}, columns=("prompt",))
def draw(task: Task) -> Generator[Any, Any, None]:
    """One picture act: `drawing`."""
    yield Draw(task.prompt)
