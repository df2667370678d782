"""Rewrite the prompt or the instruction, then draw from the rewritten one alone: PromptRL (arXiv 2602.01382).

*Partial refinement*: the first `keep` siblings of a group keep the original and write nothing, and all siblings share
one baseline. So rewriting has to beat not rewriting, and the drawing part keeps seeing prompts as people write them.
(A demonstration is sibling 0: supervise with `keep` 0.)
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from motet.core.conversation import user
from motet.core.task import Task
from motet.scenarios.base import (
    GenerateImage,
    GenerateText,
    last_answer_block_or_text,
    scenario,
    skips_refinement,
)

REFINE = (
    "Write a clear and detailed version of this prompt for a picture: {prompt}. "
    "Put the new prompt in <answer> </answer> tags."
)
REFINE_EDIT = (
    "Write a clear and detailed version of this instruction for changing the picture: {instruction}. "
    "Put the new instruction in <answer> </answer> tags."
)


@scenario("refine_draw", acts={"refined": "text", "drawing": "image"}, columns=("prompt",))
def refine_draw(task: Task, *, keep: int = 0, instruction: str = REFINE) -> Generator[Any, Any, None]:
    """A text act `refined`, unless this sibling keeps the original; a picture act `drawing` from what it came to."""
    if skips_refinement(task, keep):
        yield GenerateImage(task.prompt, name="drawing")
        return
    refined = yield GenerateText(task.render_template(instruction, "prompt"), name="refined")
    yield GenerateImage(user(last_answer_block_or_text(refined.text)), name="drawing")


@scenario("refine_edit", acts={"refined": "text", "edit": "image"}, columns=("image", "instruction"))
def refine_edit(task: Task, *, keep: int = 0, instruction: str = REFINE_EDIT) -> Generator[Any, Any, None]:
    """As `refine_draw`, for editing: both acts, `refined` and `edit`, see the row's picture."""
    if skips_refinement(task, keep):
        yield GenerateImage(task.instruction, name="edit")
        return
    refined = yield GenerateText(task.render_template(instruction, "instruction", include_images=True), name="refined")
    yield GenerateImage(user(*task.images, last_answer_block_or_text(refined.text)), name="edit")
