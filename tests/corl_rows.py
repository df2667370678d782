"""Made-up rows in the columns and the wording of CoRL's published data sets, as files."""

import json
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

COLUMNS = {"image": "real_image", "question": "qa_problem", "answer": "qa_solution"}
WISH = (
    "Reason inside <think> </think> tags, then give {} inside <answer> </answer> tags: "
    "<think> ... </think><answer>{}</answer>"
)
TAGGED = "<think>I look at it.</think><answer>{}</answer>"


def row(number: int, question: str, gold: str, options: tuple[str, ...] = ()) -> dict[str, Any]:
    """A row of x2x_rft_22k with its picture; MC if it has options."""
    lines = [f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=False)]
    asked = "\n".join([f"Question: {question}", *(["Options:", *lines] if options else [])])
    wish = WISH.format("the option letter, e.g., A/B/C/D", "option letter") if options else WISH.format("it", "answer")
    image = Image.new("RGB", (24 + number, 18), (60 * number, 255 - 60 * number, 90))
    image.paste("white", (0, 0, 6, 6))
    return {
        "real_image": image,
        "prompt": f"a photo of {number} red buses on a street",
        "qa_problem": f"{asked}\n\n{wish}",
        "qa_solution": f"<answer>{gold}</answer>",
        "qa_type": "MC" if options else "OE",
        "cls_problem": "Name the vehicle.",
        "cls_solution": "<answer>bus</answer>",
        "od_problem": "Detect the bus.",
        "od_solution": "<answer>[{'Position': [0, 0, 9, 9], 'Confidence': 1}]</answer>",
        "concept_coverage": 1,
    }


ROWS = [
    row(0, "Which vehicle is it?", "B", ("car", "bus", "train", "bike")),
    row(1, "What is it made of?", "orange juice"),
    row(2, "How many are there?", "four"),
    row(3, "A. or B.: what is drawn here?", "C", ("a cat", "a dog", "a red bird", "none of them")),
]
"""Right, in another form; and wrong."""
RIGHT = ["bus", "Orange juice.", "4", "(C) a red bird"]
WRONG = ["car", "juice", "5", "B. a dog"]


def save_parquet(folder: Path, rows: list[dict[str, Any]] = ROWS, name: str = "x2x.parquet") -> Path:
    """As the hub stores them: pictures inside."""
    data = datasets.Dataset.from_list(rows).cast_column("real_image", datasets.Image())
    data.to_parquet(folder / name)
    return folder / name


def save_jsonl(folder: Path, rows: list[dict[str, Any]] = ROWS, name: str = "x2x.jsonl") -> Path:
    """Pictures as PNG files beside the rows."""
    lines = []
    for number, one in enumerate(rows):
        one["real_image"].save(folder / f"{number}.png")
        lines.append(json.dumps({**one, "real_image": f"{number}.png"}))
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder / name


def mcot(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The rows of one kind in the three columns of mcot_r1_mcq_66k and mcot_r1_vqa_66k."""
    return [{name: one[name] for name in COLUMNS.values()} for one in rows if one["qa_type"] == kind]
