"""A scenario of your own: draw something, then answer a question about your own drawing."""

from motet.scenarios import GenerateImage, GenerateText, scenario, user


@scenario("look_at_yours", acts={"image": "image", "answer": "text"}, columns=("prompt", "question"))
def look_at_yours(task):
    drawing = yield GenerateImage(task.prompt, name="image")
    yield GenerateText(user(drawing.image, task["question"]), name="answer")
