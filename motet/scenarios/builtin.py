"""The built-in scenarios: generate an image, answer a question, both, edit, think first, reflect, refine the prompt.

The instructions are defaults of options; the shipped checkpoints were trained with exactly these texts.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from motet.core.conversation import Conversation, user
from motet.core.task import Task
from motet.scenarios.base import (
    GenerateImage,
    GenerateText,
    as_image_turn,
    as_text_turn,
    last_answer_block_or_text,
    scenario,
    skips_refinement,
)

Requests = Generator[Any, Any, None]

THINK = "Plan a picture of: {prompt}. Say what it shows and where, and put the result in <answer> </answer> tags."
DESCRIBE = "what is in the picture?"
CRITIQUE = "What is wrong with the picture? Answer nothing if it is right."
REGENERATE = "Draw it again."
REFINE = (
    "Write a clear and detailed version of this prompt for a picture: {prompt}. "
    "Put the new prompt in <answer> </answer> tags."
)
REFINE_EDIT = (
    "Write a clear and detailed version of this instruction for changing the picture: {instruction}. "
    "Put the new instruction in <answer> </answer> tags."
)
_TOKENS_THEN_FLOW = {"tokens": "image", "image": "denoising"}


@scenario("answer", acts={"answer": "text"}, columns=("question",))
def answer(task: Task) -> Requests:
    """A text act `answer` to the row's question, about the row's images if it has any."""
    yield GenerateText(task.question)


@scenario("text_to_image", acts={"image": "image"}, columns=("prompt",))
def text_to_image(task: Task) -> Requests:
    """An image act `image` of the row's prompt."""
    yield GenerateImage(task.prompt)


@scenario("generate_and_answer", acts={"image": "image", "answer": "text"}, columns=("prompt", "question"))
def generate_and_answer(task: Task) -> Requests:
    """Two independent acts as one joint sample, `image` and `answer`: CoRL's unified stage (arXiv 2505.17534)."""
    yield GenerateImage(task.prompt, name="image"), GenerateText(task.question, name="answer")


@scenario("think_then_generate", acts={"thought": "text", "image": "image"}, columns=("prompt",))
def think_then_generate(task: Task, *, instruction: str = THINK) -> Requests:
    """A text act `thought` from the instruction alone, then an image act `image`.

    The context of the image is the prompt as in `text_to_image`, then the whole thought, tags included, as the policy's
    own turn: a policy that generates prompts well starts from what it can do.
    """
    thought = yield GenerateText(task.render_template(instruction, "prompt"), name="thought")
    yield GenerateImage(task.prompt + as_text_turn(thought), name="image")


@scenario("edit", acts={"edit": "image"}, columns=("image", "instruction"))
def edit(task: Task) -> Requests:
    """An image act `edit` from the row's image and its instruction."""
    yield GenerateImage(task.instruction, name="edit")


@scenario("edit_cycle", acts={"edit": "image", "restored": "image"}, columns=("image", "instruction", "inverse"))
def edit_cycle(task: Task) -> Requests:
    """Two image acts: `edit`, then `restored` from the edited image and the inverse instruction alone.

    The source is not shown again, so whatever the edit destroyed cannot be restored (UniRL-Zero's editing cycle,
    arXiv 2510.17937).
    """
    edited = yield GenerateImage(task.instruction, name="edit")
    inverse = task.render_template("{inverse}", "inverse").text  # as text, also where the data has chat messages
    yield GenerateImage(user(edited.image, inverse), name="restored")


@scenario("reflect", acts={"draft": "image", "critique": "text", "revision": "image"}, columns=("prompt",))
def reflect(
    task: Task, *, question: str = CRITIQUE, regenerate_prompt: str = REGENERATE, train_draft: bool = True
) -> Requests:
    """`draft` (image), `critique` of it (text), and `revision` (image) with the prompt, draft and critique before it.

    `train_draft` false leaves the draft out of the loss: for SFT on drafts with planted mistakes.
    """
    draft = yield GenerateImage(task.prompt, name="draft", trained=train_draft)
    context = task.prompt + as_image_turn(draft)
    critique = yield GenerateText(context + user(question), name="critique")
    yield GenerateImage(context + user(question) + as_text_turn(critique) + user(regenerate_prompt), name="revision")


@scenario("regenerate", acts={"draft": "image", "revision": "image"}, columns=("prompt",))
def regenerate(task: Task, *, regenerate_prompt: str = REGENERATE, train_draft: bool = True) -> Requests:
    """The ablation of `reflect` without question and critique, all else equal."""
    draft = yield GenerateImage(task.prompt, name="draft", trained=train_draft)
    yield GenerateImage(task.prompt + as_image_turn(draft) + user(regenerate_prompt), name="revision")


@scenario("caption_cycle", acts={"caption": "text", "regenerated": "image"}, columns=("image",))
def caption_cycle(task: Task, *, question: str = DESCRIBE) -> Requests:
    """A text act `caption` of the row's image, then an image act `regenerated` from the caption alone."""
    caption = yield GenerateText(task.with_images(question), name="caption")
    yield GenerateImage(user(last_answer_block_or_text(caption.text)), name="regenerated")


@scenario("refine_prompt", acts={"refined": "text", "image": "image"}, columns=("prompt",))
def refine_prompt(task: Task, *, keep: int = 0, instruction: str = REFINE) -> Requests:
    """A text act `refined` that rewrites the prompt, then an image act `image` from the refined prompt alone.

    PromptRL (arXiv 2602.01382). *Partial refinement*: the first `keep` generations of a group use the original prompt
    and have no act `refined`; all share one baseline, so that refining has to beat not refining, and the image policy
    keeps seeing prompts as users write them. (SFT encodes generation 0: use `keep` 0 there.)
    """
    if skips_refinement(task, keep):
        yield GenerateImage(task.prompt, name="image")
        return
    refined = yield GenerateText(task.render_template(instruction, "prompt"), name="refined")
    yield GenerateImage(user(last_answer_block_or_text(refined.text)), name="image")


@scenario("refine_edit", acts={"refined": "text", "edit": "image"}, columns=("image", "instruction"))
def refine_edit(task: Task, *, keep: int = 0, instruction: str = REFINE_EDIT) -> Requests:
    """As `refine_prompt`, for editing: both acts, `refined` and `edit`, see the row's image."""
    if skips_refinement(task, keep):
        yield GenerateImage(task.instruction, name="edit")
        return
    context = task.render_template(instruction, "instruction", include_images=True)
    refined = yield GenerateText(context, name="refined")
    yield GenerateImage(user(*task.images, last_answer_block_or_text(refined.text)), name="edit")


@scenario("tokens_then_flow", acts=_TOKENS_THEN_FLOW, columns=("prompt",))
def tokens_then_flow(task: Task, *, train_tokens: bool = True, train_image: bool = True) -> Requests:
    """An image act `tokens` of the prompt, then a denoising act `image` of those tokens: BLIP3o-NEXT.

    `train_tokens` or `train_image` false leaves that act out of the loss: the flow decoder trains alone, or the
    language model does, rewarded for what the decoder made of its tokens.
    """
    yield from _tokens_then_flow(task.prompt, train_tokens, train_image)


@scenario("think_tokens_then_flow", acts={"thought": "text", **_TOKENS_THEN_FLOW}, columns=("prompt",))
def think_tokens_then_flow(
    task: Task, *, instruction: str = THINK, train_tokens: bool = True, train_image: bool = True
) -> Requests:
    """A text act `thought` as in `think_then_generate`, then the acts of `tokens_then_flow` with it before them."""
    thought = yield GenerateText(task.render_template(instruction, "prompt"), name="thought")
    yield from _tokens_then_flow(task.prompt + as_text_turn(thought), train_tokens, train_image)


def _tokens_then_flow(context: Conversation, train_tokens: bool, train_image: bool) -> Requests:
    tokens = yield GenerateImage(context, name="tokens", trained=train_tokens)
    yield GenerateImage(context + as_image_turn(tokens), name="image", trained=train_image)


BUILT_IN = (
    *(answer, text_to_image, generate_and_answer, think_then_generate, edit, edit_cycle),
    *(reflect, regenerate, caption_cycle, refine_prompt, refine_edit, tokens_then_flow, think_tokens_then_flow),
)
