"""Draw what the row's prompt describes."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from motet.core.task import Task
from motet.scenarios.base import GenerateImage, scenario


@scenario("draw", acts={"drawing": "image"}, columns=("prompt",))
def draw(task: Task) -> Generator[Any, Any, None]:
    """One picture act: `drawing`."""
    yield GenerateImage(task.prompt)
