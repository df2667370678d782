"""Answer the row's question, about its pictures if it has any; without pictures this is reasoning about text alone."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from motet.core.task import Task
from motet.scenarios.base import GenerateText, scenario


@scenario("answer", acts={"answer": "text"}, columns=("question",))
def answer(task: Task) -> Generator[Any, Any, None]:
    """One text act: `answer`."""
    yield GenerateText(task.question)
