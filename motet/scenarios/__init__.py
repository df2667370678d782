"""Scenarios: little programs that say what the policy is to write and draw, and in which context."""

from motet.scenarios.answer import answer
from motet.scenarios.base import (
    SCENARIOS,
    Draw,
    Program,
    Scenario,
    Write,
    asks,
    built_in_scenarios,
    extract_refined,
    keeps_original,
    resolve_scenario,
    says,
    scenario,
    shows,
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
    "Draw",
    "Program",
    "Scenario",
    "Write",
    "answer",
    "asks",
    "built_in_scenarios",
    "caption_redraw",
    "draw",
    "duet",
    "edit",
    "edit_cycle",
    "extract_refined",
    "keeps_original",
    "paint",
    "redraw",
    "refine_draw",
    "refine_edit",
    "reflect",
    "resolve_scenario",
    "says",
    "scenario",
    "shows",
    "think_draw",
    "think_paint",
]
