"""A scenario of your own: draw something, then answer a question about your own drawing."""

from motet.scenarios import Draw, Write, asks, scenario


@scenario("look_at_yours", acts={"drawing": "image", "answer": "text"}, columns=("prompt", "question"))
def look_at_yours(task):
    drawing = yield Draw(task.prompt, name="drawing")
    yield Write(asks(drawing.image, task["question"]), name="answer")
