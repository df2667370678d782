"""Scenarios: little programs that say what the policy is to write and draw, and in which context."""

from motet.core.conversation import user
from motet.scenarios.answer import answer
from motet.scenarios.base import (
    SCENARIOS,
    GenerateImage,
    GenerateText,
    Program,
    Scenario,
    as_image_turn,
    as_text_turn,
    built_in_scenarios,
    last_answer_block_or_text,
    resolve_scenario,
    scenario,
    skips_refinement,
)
from motet.scenarios.caption_redraw import caption_redraw
from motet.scenarios.draw import draw
from motet.scenarios.duet import duet
from motet.scenarios.edit import edit, edit_cycle
from motet.scenarios.paint import paint, think_paint
from motet.scenarios.refine import refine_draw, refine_edit
from motet.scenarios.reflect import redraw, reflect
from motet.scenarios.think_draw import think_draw

for _built_in in (
    *(answer, draw, duet, think_draw, edit, edit_cycle),
    *(reflect, redraw, caption_redraw, refine_draw, refine_edit, paint, think_paint),
):
    SCENARIOS.add(_built_in.name, _built_in)

__all__ = [
    "GenerateImage",
    "GenerateText",
    "Program",
    "Scenario",
    "answer",
    "as_image_turn",
    "as_text_turn",
    "built_in_scenarios",
    "caption_redraw",
    "draw",
    "duet",
    "edit",
    "edit_cycle",
    "last_answer_block_or_text",
    "paint",
    "redraw",
    "refine_draw",
    "refine_edit",
    "reflect",
    "resolve_scenario",
    "scenario",
    "skips_refinement",
    "think_draw",
    "think_paint",
    "user",
]
