"""Train on your own rows with your own reward and callback: python examples/python_api/train.py"""

from PIL import Image, ImageOps

import motet


def row(color):
    image = ImageOps.expand(Image.new("RGB", (12, 12), color), 18, "white")
    return {"question": "what color is the square?", "image": image}


def brevity(completions, **columns):
    return [max(0.0, 1 - len(chat[-1]["content"]) / 100) for chat in completions]


class Print:
    def on_step_end(self, step, metrics):
        print(f"step {step}: reward {metrics['reward']:.3f}")


ROWS = [row(color) for color in ("red", "green", "blue", "black", "orange", "purple")]
if __name__ == "__main__":
    result = motet.train(
        "checkpoints/shapes_janus", scenario="answer", data=ROWS[:4], rewards=brevity, callbacks=[Print()], steps=5,
        eval={"suite": {"name": "rewards", "data": ROWS[4:]}}, optimizer={"learning_rate": 1e-4},
        sampling={"text": {"max_tokens": 64}}, output="runs/mine",
    )  # fmt: skip
    print("before:", result.before["answer"]["brevity"]["mean"], "after:", result.after["answer"]["brevity"]["mean"])
    print("saved:", result.checkpoint)
