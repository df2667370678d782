"""A scenario of your own with four acts: draw, ask yourself what to change, change it, answer about the result."""

from motet.scenarios import GenerateImage, GenerateText, last_answer_block_or_text, scenario, user

ACTS = {"image": "image", "wish": "text", "edit": "image", "answer": "text"}
WISH = "What should be changed? Put one instruction in <answer> </answer> tags."


@scenario("ask_and_edit", acts=ACTS, columns=("prompt", "question"))
def ask_and_edit(task, *, wish: str = WISH):
    drawing = yield GenerateImage(task.prompt, name="image")
    wished = yield GenerateText(user(drawing.image, wish), name="wish")
    edit = yield GenerateImage(user(drawing.image, last_answer_block_or_text(wished.text)), name="edit")
    yield GenerateText(user(edit.image, task["question"]), name="answer")
