"""A row of a shapes world: a prompt with its target image, and an image with a question, for every scenario."""

from __future__ import annotations

from typing import Any

from motet.shapes.prompts import Spec
from motet.shapes.questions import Question, describe, solution
from motet.shapes.render import render
from motet.shapes.scene import Scene


def make_row(
    prompt: tuple[str, Spec], target: Scene, asked: tuple[Scene, Question], *, canvas: int, chain_of_thought: bool
) -> dict[str, Any]:
    """The columns of both worlds; images are `canvas` x `canvas` pixels."""
    text, spec = prompt
    scene, question = asked
    return {
        "prompt": text,
        "category": spec["category"],
        "spec": spec,
        "target": render(target, canvas),
        "image": render(scene, canvas),
        "question": question.text,
        "options": list(question.options),
        "answer": question.answer,
        "kind": question.kind,
        "solution": solution(question, scene, chain_of_thought),
        "scene": describe(scene),
    }
