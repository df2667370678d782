"""Draw, find the mistake, draw again; and the control that draws again without having looked for one."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from motet.core.conversation import user
from motet.core.task import Task
from motet.scenarios.base import GenerateImage, GenerateText, as_image_turn, as_text_turn, scenario

CRITIQUE = "What is wrong with the picture? Answer nothing if it is right."
AGAIN = "Draw it again."


@scenario("reflect", acts={"draft": "image", "critique": "text", "revision": "image"}, columns=("prompt",))
def reflect(
    task: Task, *, question: str = CRITIQUE, again: str = AGAIN, train_draft: bool = True
) -> Generator[Any, Any, None]:
    """`draft` (picture), `critique` of it (text), `revision` (picture) with the prompt, draft and critique before it.

    `train_draft` false leaves the draft out of the loss: for supervision on drafts that hold planted mistakes.
    """
    draft = yield GenerateImage(task.prompt, name="draft", trained=train_draft)
    looked = task.prompt + as_image_turn(draft)
    critique = yield GenerateText(looked + user(question), name="critique")
    yield GenerateImage(looked + user(question) + as_text_turn(critique) + user(again), name="revision")


@scenario("redraw", acts={"draft": "image", "revision": "image"}, columns=("prompt",))
def redraw(task: Task, *, again: str = AGAIN, train_draft: bool = True) -> Generator[Any, Any, None]:
    """`reflect` without its question and critique, all else equal: what they are worth is what it gains beyond this."""
    draft = yield GenerateImage(task.prompt, name="draft", trained=train_draft)
    yield GenerateImage(task.prompt + as_image_turn(draft) + user(again), name="revision")
