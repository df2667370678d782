"""The tasks of the shapes worlds beside their prompts and questions, by the name that `data.options.task` gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from motet.shapes.base import World
from motet.shapes.drafts import draft_row
from motet.shapes.edits import edit_row
from motet.shapes.prompts import Rng
from motet.shapes.questions import describe, solution
from motet.shapes.render import render

Task = Callable[[World[Any], Rng], dict[str, Any]]
"""Makes one row."""


def reasoning_row(world: World[Any], rng: Rng) -> dict[str, Any]:
    """A text-only question, `a2 red circle, c1 blue square. how many circles?`, with the columns of other questions."""
    scene, question = world.text_question(rng)
    return {
        "question": f"{describe(scene)}. {question.text}",
        "options": list(question.options),
        "answer": question.answer,
        "kind": question.kind,
        "solution": solution(question, scene, world.thought(rng)),
        "scene": describe(scene),
    }


def layout_row(world: World[Any], rng: Rng) -> dict[str, Any]:
    """A prompt, a `thought` with a layout, `<answer> b2 red circle, c3 blue cross</answer>`, and the image of it.

    Where the prompt leaves a colour open, layouts contain only compositions that texts of the split may name.
    """
    prompt, spec = world.prompt(rng)
    scene = world.target(rng, spec)
    while not world.may_list(scene):
        scene = world.target(rng, spec)
    return {
        "prompt": prompt,
        "category": spec["category"],
        "spec": spec,
        "thought": f"<answer> {describe(scene)}</answer>",
        "target": render(scene, world.options.canvas),
        "scene": describe(scene),
    }


TASK_ROWS: dict[str, Task] = {"reasoning": reasoning_row, "layouts": layout_row, "edits": edit_row, "drafts": draft_row}
"""Each task's function that makes one row, by the names in `motet.shapes.options.TASKS`."""
