"""Draw a picture's tokens, then paint the picture anew from them: for a model whose flow decoder reads image tokens."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from motet.core.conversation import Conversation
from motet.core.task import Task
from motet.scenarios.base import GenerateImage, GenerateText, as_image_turn, as_text_turn, scenario
from motet.scenarios.think_draw import THINK

PAINT = {"tokens": "image", "drawing": "denoising"}


@scenario("paint", acts=PAINT, columns=("prompt",))
def paint(task: Task, *, train_tokens: bool = True, train_drawing: bool = True) -> Generator[Any, Any, None]:
    """An image act `tokens` of the prompt, then a denoising act `drawing` of those tokens (BLIP3o-NEXT).

    `train_tokens` or `train_drawing` false leaves that act out of the loss: the decoder learns alone, or the language
    model does, from what the decoder made of its tokens.
    """
    yield from _painted(task.prompt, train_tokens, train_drawing)


@scenario("think_paint", acts={"thought": "text", **PAINT}, columns=("prompt",))
def think_paint(
    task: Task, *, instruction: str = THINK, train_tokens: bool = True, train_drawing: bool = True
) -> Generator[Any, Any, None]:
    """As `paint`, after a text act `thought` as in `think_draw`: acts of all three kinds, each with all before it."""
    thought = yield GenerateText(task.render_template(instruction, "prompt"), name="thought")
    yield from _painted(task.prompt + as_text_turn(thought), train_tokens, train_drawing)


def _painted(context: Conversation, train_tokens: bool, train_drawing: bool) -> Generator[Any, Any, None]:
    tokens = yield GenerateImage(context, name="tokens", trained=train_tokens)
    yield GenerateImage(context + as_image_turn(tokens), name="drawing", trained=train_drawing)
