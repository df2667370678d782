"""A scenario of your own: generate an image, then answer a question about it."""

from motet.scenarios import GenerateImage, GenerateText, scenario, user


@scenario("look_at_yours", acts={"image": "image", "answer": "text"}, columns=("prompt", "question"))
def look_at_yours(task):
    generated = yield GenerateImage(task.prompt, name="image")
    yield GenerateText(user(generated.image, task["question"]), name="answer")
