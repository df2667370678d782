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
    resolve_scenario,
    says,
    scenario,
    shows,
)
from motet.scenarios.draw import draw
from motet.scenarios.duet import duet

for _built_in in (answer, draw, duet):
    SCENARIOS.add(_built_in.name, _built_in)

__all__ = [
    "Draw",
    "Program",
    "Scenario",
    "Write",
    "answer",
    "asks",
    "built_in_scenarios",
    "draw",
    "duet",
    "resolve_scenario",
    "says",
    "scenario",
    "shows",
]
