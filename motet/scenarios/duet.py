"""Draw a prompt and answer a question as one joint sample: CoRL's unified stage (arXiv 2505.17534)."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from motet.core.task import Task
from motet.scenarios.base import GenerateImage, GenerateText, scenario


@scenario("duet", acts={"drawing": "image", "answer": "text"}, columns=("prompt", "question"))
def duet(task: Task) -> Generator[Any, Any, None]:
    """Two independent acts of one trajectory: `drawing` and `answer`."""
    yield GenerateImage(task.prompt, name="drawing"), GenerateText(task.question, name="answer")
