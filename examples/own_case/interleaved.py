"""A scenario of your own with four acts: draw, ask yourself what to change, change it, answer about the result."""

from motet.scenarios import Draw, Write, asks, extract_refined, scenario

ACTS = {"drawing": "image", "wish": "text", "edit": "image", "answer": "text"}
WISH = "What should be changed? Put one instruction in <answer> </answer> tags."


@scenario("ask_and_edit", acts=ACTS, columns=("prompt", "question"))
def ask_and_edit(task, *, wish: str = WISH):
    drawing = yield Draw(task.prompt, name="drawing")
    wished = yield Write(asks(drawing.image, wish), name="wish")
    edit = yield Draw(asks(drawing.image, extract_refined(wished.text)), name="edit")
    yield Write(asks(edit.image, task["question"]), name="answer")
