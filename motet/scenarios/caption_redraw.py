"""The reverse cycle: describe a picture, then draw it again from the description alone."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from motet.core.conversation import user
from motet.core.task import Task
from motet.scenarios.base import GenerateImage, GenerateText, last_answer_block_or_text, scenario

QUESTION = "what is in the picture?"


@scenario("caption_redraw", acts={"caption": "text", "redrawn": "image"}, columns=("image",))
def caption_redraw(task: Task, *, question: str = QUESTION) -> Generator[Any, Any, None]:
    """A text act `caption` of the row's picture, then a picture act `redrawn` that sees nothing but the caption.

    A caption is worth what can be drawn from it.
    """
    caption = yield GenerateText(task.with_images(question), name="caption")
    yield GenerateImage(user(last_answer_block_or_text(caption.text)), name="redrawn")
