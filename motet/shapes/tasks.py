"""The tasks of the shapes world beside its prompts and questions, by the name that `data.options.task` gives."""

from __future__ import annotations

from motet.shapes.drafts import draft_row
from motet.shapes.edits import edit_row
from motet.shapes.plans import plan_row
from motet.shapes.reasoning import reasoning_row
from motet.shapes.scene_edits import Task

PROMPTS = "prompts"
"""The task of `motet.shapes.world` itself."""
TASKS: dict[str, Task] = {"reasoning": reasoning_row, "plans": plan_row, "edits": edit_row, "drafts": draft_row}
