"""The tasks of the shapes world beside its prompts and questions, by the name that `data.options.task` gives."""

from __future__ import annotations

from typing import Any

from motet.shapes.drafts import draft_row
from motet.shapes.edits import edit_row
from motet.shapes.prompts import Rng, sample_scene
from motet.shapes.questions import describe, sample_question, solution
from motet.shapes.render import render
from motet.shapes.scene_edits import Task, World, contains_held_out_pair

PROMPTS = "prompts"
"""The task of `motet.shapes.world` itself."""


def reasoning_row(world: World, rng: Rng) -> dict[str, Any]:
    """A text-only question, `a2 red circle, c1 blue square. how many circles?`, with the columns of other questions.

    Descriptions outside the held-out split contain no held-out pair: unlike an image, the text names its pairs.
    """
    held_out = world.split == "held_out"
    while True:
        scene = world.scene(rng)
        if not world.belongs_to_split(describe(scene)) or (not held_out and contains_held_out_pair(scene)):
            continue
        question = sample_question(rng, scene, world.question_kind(rng), world.open_ended_fraction)
        if question is not None and question.held_out == held_out:
            break
    return {
        "question": f"{describe(scene)}. {question.text}",
        "options": list(question.options),
        "answer": question.answer,
        "kind": question.kind,
        "solution": solution(question, scene, chain_of_thought=bool(rng.random() < world.options.cot_fraction)),
        "scene": describe(scene),
    }


def layout_row(world: World, rng: Rng) -> dict[str, Any]:
    """A prompt, a `thought` with a layout, `<answer> b2 red circle, c3 blue cross</answer>`, and the image of it.

    Layouts outside the held-out split contain no held-out pair where the prompt leaves a colour open.
    """
    prompt, spec = world.prompt(rng)
    scene = sample_scene(rng, spec)
    while world.split != "held_out" and contains_held_out_pair(scene):
        scene = sample_scene(rng, spec)
    return {
        "prompt": prompt,
        "category": spec["category"],
        "spec": spec,
        "thought": f"<answer> {describe(scene)}</answer>",
        "target": render(scene, world.options.canvas),
        "scene": describe(scene),
    }


TASKS: dict[str, Task] = {"reasoning": reasoning_row, "layouts": layout_row, "edits": edit_row, "drafts": draft_row}
"""Each task's function that makes one row. The position of a task seeds its rows: append, never reorder."""
