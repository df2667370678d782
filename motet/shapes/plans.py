"""Plans: a prompt, a layout in words that satisfies it, and the picture of exactly that layout."""

from __future__ import annotations

from typing import Any

from motet.shapes.prompts import Rng, sample_scene
from motet.shapes.questions import describe
from motet.shapes.render import render
from motet.shapes.scene_edits import Pieces, holds_held_out_pair


def plan_row(world: Pieces, rng: Rng) -> dict[str, Any]:
    """A demonstration of thinking before drawing: `thought` is `<answer> b2 red circle, c3 blue cross</answer>`.

    Plans of training and test name no held-out pair, where the prompt leaves a colour open.
    """
    prompt, spec = world.prompt(rng)
    scene = sample_scene(rng, spec)
    while world.split != "held_out" and holds_held_out_pair(scene):
        scene = sample_scene(rng, spec)
    return {
        "prompt": prompt,
        "category": spec["category"],
        "spec": spec,
        "thought": f"<answer> {describe(scene)}</answer>",
        "target": render(scene, world.options.canvas),
        "scene": describe(scene),
    }
