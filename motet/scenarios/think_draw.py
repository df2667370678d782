"""Think, then draw: a plan or an enhanced prompt in words first, and the picture with both before it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from motet.core.task import Task
from motet.scenarios.base import GenerateImage, GenerateText, as_text_turn, scenario

THINK = "Plan a picture of: {prompt}. Say what it shows and where, and put the result in <answer> </answer> tags."


@scenario("think_draw", acts={"thought": "text", "drawing": "image"}, columns=("prompt",))
def think_draw(task: Task, *, instruction: str = THINK) -> Generator[Any, Any, None]:
    """A text act `thought`, asked for by the instruction alone, then a picture act `drawing`.

    The drawing's context is the prompt as in `draw`, and after it the whole thought, tags included, as the policy's own
    turn. So a policy that draws prompts well starts from what it knows.
    """
    thought = yield GenerateText(task.render_template(instruction, "prompt"), name="thought")
    yield GenerateImage(task.prompt + as_text_turn(thought), name="drawing")
