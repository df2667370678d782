"""Make a small dataset in your own format: images as PNG files, and questions about them in a JSONL file.

    python examples/own_case/make_data.py data/own_case

Replace it by your own images and questions: one JSON object per line, with the image's path relative to the file.
"""

import json
import sys
from pathlib import Path

from motet.shapes.render import render
from motet.shapes.scene import Scene, ShapeInstance

OBJECTS = ["red circle", "blue square", "green triangle", "yellow cross"]


def main(folder: Path) -> None:
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    with (folder / "questions.jsonl").open("w", encoding="utf-8") as file:
        for number in range(16):
            colour, shape = OBJECTS[number % len(OBJECTS)].split()
            cells = [(number % 4, 0), (0, 3), (3, 2)][: 1 + number % 3]
            scene = Scene(4, tuple(sorted(ShapeInstance(row, column, colour, shape) for row, column in cells)))
            name = f"images/{number:03d}.png"
            render(scene, 32).save(folder / name)
            row = {
                "image": name,
                "question": "what colour are the things?",
                "answer": colour,
                "prompt": f"{len(cells)} {colour} {shape}{'' if len(cells) == 1 else 's'}",
            }
            file.write(json.dumps(row) + "\n")
    print(f"16 questions in {folder / 'questions.jsonl'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data/own_case"))
