"""Draw, find the mistake, draw again; and the control that draws again without having looked for one."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from motet.core.task import Task
from motet.scenarios.base import Draw, Write, asks, says, scenario, shows

CRITIQUE = "What is wrong with the picture? Answer nothing if it is right."
AGAIN = "Draw it again."


@scenario("reflect", acts={"draft": "image", "critique": "text", "revision": "image"}, columns=("prompt",))
def reflect(
    task: Task, *, question: str = CRITIQUE, again: str = AGAIN, train_draft: bool = True
) -> Generator[Any, Any, None]:
    """`draft` (picture), `critique` of it (text), `revision` (picture) with the prompt, draft and critique before it.

    `train_draft` false leaves the draft out of the loss: for supervision on drafts that hold planted mistakes.
    """
    draft = yield Draw(task.prompt, name="draft", trained=train_draft)
    looked = task.prompt + shows(draft)
    critique = yield Write(looked + asks(question), name="critique")
    yield Draw(looked + asks(question) + says(critique) + asks(again), name="revision")


@scenario("redraw", acts={"draft": "image", "revision": "image"}, columns=("prompt",))
def redraw(task: Task, *, again: str = AGAIN, train_draft: bool = True) -> Generator[Any, Any, None]:
    """`reflect` without its question and critique, all else equal: what they are worth is what it gains beyond this."""
    draft = yield Draw(task.prompt, name="draft", trained=train_draft)
    yield Draw(task.prompt + shows(draft) + asks(again), name="revision")
