"""checkpoints/easy_vqa_janus: small, and better at answering easy-VQA's test split than guessing."""

from pathlib import Path

import pytest

from motet.config import DataConfig
from motet.data import open_rows
from motet.policies import load_policy
from motet.rewards.text.answer_parsing import extract_answer, same_answer

ROOT = Path(__file__).resolve().parent.parent.parent
COLD_START = ROOT / "checkpoints" / "easy_vqa_janus"


def test_the_cold_start_is_small() -> None:
    assert sum(file.stat().st_size for file in COLD_START.iterdir()) < 10_000_000


def test_the_cold_start_answers_questions() -> None:
    pytest.importorskip("easy_vqa")
    rows = open_rows(DataConfig(source="easy_vqa", split="test", options={"task": "questions"}), check=False)
    asked = [rows.task(number) for number in range(0, 9600, 200)]
    acts = load_policy(COLD_START).generate_text([task.question for task in asked], max_tokens=24, temperature=0.0)
    answers = [(extract_answer(act.text), task["answer"]) for act, task in zip(acts, asked, strict=True)]
    assert all(answer is not None for answer, _ in answers)
    assert sum(same_answer(answer or "", gold) for answer, gold in answers) >= 24
