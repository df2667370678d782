"""A scenario of your own with four acts: generate an image, ask what to change, edit it, answer about the result."""

from motet.scenarios import GenerateImage, GenerateText, last_answer_block_or_text, scenario, user

ACTS = {"image": "image", "wish": "text", "edit": "image", "answer": "text"}
WISH = "What should be changed? Put one instruction in <answer> </answer> tags."


@scenario("ask_and_edit", acts=ACTS, columns=("prompt", "question"))
def ask_and_edit(task, *, wish: str = WISH):
    generated = yield GenerateImage(task.prompt, name="image")
    wish_act = yield GenerateText(user(generated.image, wish), name="wish")
    edit = yield GenerateImage(user(generated.image, last_answer_block_or_text(wish_act.text)), name="edit")
    yield GenerateText(user(edit.image, task["question"]), name="answer")
