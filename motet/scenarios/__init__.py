"""Scenarios: generator functions that request text and image generations."""

from motet.core.conversation import user
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
from motet.scenarios.builtin import (
    BUILT_IN,
    answer,
    caption_cycle,
    edit,
    edit_cycle,
    generate_and_answer,
    refine_edit,
    refine_prompt,
    reflect,
    regenerate,
    text_to_image,
    think_then_generate,
    think_tokens_then_flow,
    tokens_then_flow,
)

for _scenario in BUILT_IN:
    SCENARIOS.add(_scenario.name, _scenario)

__all__ = [
    "GenerateImage",
    "GenerateText",
    "Program",
    "Scenario",
    "answer",
    "as_image_turn",
    "as_text_turn",
    "built_in_scenarios",
    "caption_cycle",
    "edit",
    "edit_cycle",
    "generate_and_answer",
    "last_answer_block_or_text",
    "refine_edit",
    "refine_prompt",
    "reflect",
    "regenerate",
    "resolve_scenario",
    "scenario",
    "skips_refinement",
    "text_to_image",
    "think_then_generate",
    "think_tokens_then_flow",
    "tokens_then_flow",
    "user",
]
