"""Reasoning about text alone: a scene in words, and a question about it."""

from __future__ import annotations

from typing import Any

from motet.shapes.prompts import Rng
from motet.shapes.questions import describe, sample_question, solution
from motet.shapes.scene_edits import Pieces, holds_held_out_pair


def reasoning_row(world: Pieces, rng: Rng) -> dict[str, Any]:
    """`a2 red circle, c1 blue square. how many circles?`, with the columns of other questions, and no picture.

    What training describes holds no held-out pair: unlike a picture, a list of things names them.
    """
    held_out = world.split == "held_out"
    while True:
        scene = world.scene(rng)
        if not world.keeps(describe(scene)) or (not held_out and holds_held_out_pair(scene)):
            continue
        question = sample_question(rng, scene, world.kind(rng), world.open_ended)
        if question is not None and question.held_out == held_out:
            break
    return {
        "question": f"{describe(scene)}. {question.text}",
        "options": list(question.options),
        "answer": question.answer,
        "kind": question.kind,
        "solution": solution(question, scene, careful=bool(rng.random() < world.options.careful)),
        "scene": describe(scene),
    }
