"""The words world from scratch to RL: the script, the shipped cold start, the recipe."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from motet.policies import load_policy
from motet.rewards.image.ocr import OcrReader, edit_distance
from motet.words.world import WordsRows

ROOT = Path(__file__).resolve().parent.parent.parent
COLD_START = ROOT / "checkpoints" / "words_janus"

pytest.importorskip("rapidocr")


def test_the_cold_start_is_small() -> None:
    assert sum(file.stat().st_size for file in COLD_START.iterdir()) < 6_000_000


def test_the_cold_start_writes_words_that_it_was_not_trained_on() -> None:
    rows = [WordsRows("test", 7, {}).row(i) for i in range(32)]
    acts = load_policy(COLD_START).generate_images([row["prompt"] for row in rows])
    read = OcrReader(detect=False, line_width=96)([act.image for act in acts])
    wrong = sum(edit_distance(text.upper(), row["word"]) for text, row in zip(read, rows, strict=True))
    assert wrong <= 0.3 * 3 * len(rows)


@pytest.mark.slow
def test_the_script_makes_a_model_that_generates(tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / "init"
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setattr(sys, "argv", ["make_words_janus.py", "--output", str(out), "--steps", "4"])
    runpy.run_path(str(ROOT / "scripts" / "make_words_janus.py"), run_name="__main__")
    assert "held-out words that OCR reads right: 0.993 in the images" in capsys.readouterr().out
    (act,) = load_policy(out).generate_images(['the word "CAT"'])
    assert act.image.size == (48, 48)


@pytest.mark.slow
def test_the_recipe_runs_end_to_end(tmp_path: Path) -> None:
    small = ["run.steps=2", "run.prompts_per_step=4", "eval.size=16", "eval.samples_per_item=1"]
    command = [sys.executable, "-m", "motet", "train", "recipes/words_ocr.yaml", *small, "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (after,) = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["after"].values()
    assert set(after) == {"ocr", "ocr_exact", "psnr"}
    assert after["ocr"]["mean"] > 0.6
