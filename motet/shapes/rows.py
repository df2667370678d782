"""A row of a shapes world, of any task: deterministic by (seed, split, index)."""

from __future__ import annotations

from typing import Any

import numpy as np

from motet.shapes.base import World
from motet.shapes.options import PROMPTS, TASKS
from motet.shapes.questions import describe, solution
from motet.shapes.render import render
from motet.shapes.tasks import TASK_ROWS


def make_row(world: World[Any], index: int) -> dict[str, Any]:
    """A prompt with its target image, and an image with a question, so that one row serves every scenario.

    Another `task` has columns of its own.
    """
    key = [world.seed, world.splits.index(world.split), index]
    if world.options.task != PROMPTS:
        number = 1 + TASKS.index(world.options.task)  # tasks do not share their random numbers
        return TASK_ROWS[world.options.task](world, np.random.default_rng([*key, number]))
    rng = np.random.default_rng(key)
    (text, spec), (scene, question) = world.prompt(rng), world.question(rng)
    thought = world.thought(rng)
    target = world.target(rng, spec)
    return {
        "prompt": text,
        "category": spec["category"],
        "spec": spec,
        "target": render(target, world.options.canvas),
        "image": render(scene, world.options.canvas),
        "question": question.text,
        "options": list(question.options),
        "answer": question.answer,
        "kind": question.kind,
        "solution": solution(question, scene, thought),
        "scene": describe(scene),
    }
