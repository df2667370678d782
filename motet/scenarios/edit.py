"""Edit a picture as an instruction says; in a cycle, take the edit back as well."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from motet.core.conversation import user
from motet.core.task import Task
from motet.scenarios.base import GenerateImage, scenario


@scenario("edit", acts={"edit": "image"}, columns=("image", "instruction"))
def edit(task: Task) -> Generator[Any, Any, None]:
    """One picture act: `edit`, after the row's picture and its instruction."""
    yield GenerateImage(task.instruction, name="edit")


@scenario("edit_cycle", acts={"edit": "image", "restored": "image"}, columns=("image", "instruction", "inverse"))
def edit_cycle(task: Task) -> Generator[Any, Any, None]:
    """Two picture acts: `edit`, then `restored`, which sees the edited picture and the inverse instruction alone.

    The source is not shown again: whatever the edit destroyed cannot be restored (UniRL-Zero's editing cycle).
    """
    edited = yield GenerateImage(task.instruction, name="edit")
    back = task.render_template("{inverse}", "inverse").text  # in words, also where the data has chat messages
    yield GenerateImage(user(edited.image, back), name="restored")
