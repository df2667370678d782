"""The suite easy_vqa: whose items, tallies by hand, the same items again, and its table."""

import io
from types import SimpleNamespace

import pytest
from PIL import Image
from rich.console import Console

from motet.config import parse_recipe
from motet.core.errors import ConfigError
from motet.core.trajectory import ImageTokens
from motet.evaluation.easy_vqa_suite import EasyVqaSuite, _rows
from motet.testing import FakePolicy
from motet.training.suites import SuiteSettings, find_suite

pytest.importorskip("easy_vqa")

CONTENT = {
    "policy": {"path": "p"},
    "eval": {"suite": "easy_vqa", "size": 12, "samples_per_item": 4},
    "run": {"steps": 1},
}


class Known(FakePolicy):
    """Answers right in sample 0 and greedily, as a text with capitals; generates every second item right."""

    greedy = False

    def __init__(self):
        super().__init__(writes=self.write)
        self.items = {"text": _rows("questions", 12), "image": _rows("captions", 12)}

    def write(self, request):
        right = self.greedy or request.key[2] == 0
        gold = self.items["text"][request.key[1]]["answer"]
        return f"<think> so</think><answer> {gold.upper()}.</answer>" if right else f"<answer>{gold}"

    def act(self, requests, sampling):
        self.greedy = sampling.temperature == 0
        acts = super().act(requests, sampling)
        if requests[0].kind == "text":
            return acts
        images = [self.items["image"][request.key[1]]["target"] for request in requests]
        wrong = Image.new("RGB", (64, 64), "white")
        shown = [wrong if r.key[1] % 2 else image for r, image in zip(requests, images, strict=True)]
        return [ImageTokens(**{**vars(act), "image": image}) for act, image in zip(acts, shown, strict=True)]


class Strokes(FakePolicy):
    kinds = frozenset({"strokes"})


def settings(**others):
    return SuiteSettings(SimpleNamespace(recipe=parse_recipe(CONTENT)), **others)  # type: ignore[arg-type]


def test_tallies_by_hand():
    result = EasyVqaSuite()(Known(), settings())
    assert result.metrics == {"answer": 0.25, "image": 0.5, "answer_greedy": 1.0, "image_greedy": 0.5}
    answer, image = result.table["answer"], result.table["image"]
    assert (
        answer["overall"]["by_item"] == [0.25] * 12 and answer["overall"]["interval"] == 0.1657
    )  # 0.75 * (1 - 0.05 ** (1 / 12))
    assert sum(part["items"] for label, part in answer.items() if label != "overall") == 12
    assert set(image) <= {"overall", "circle", "rectangle", "triangle"}
    assert [correct for _, _, correct in result.samples] == [True, False] * 6


def test_the_same_items_again_and_the_table():
    before = EasyVqaSuite()(Known(), settings()).table
    again = EasyVqaSuite()(Known(), settings(same_items_as=before)).table
    assert again == before
    console = Console(file=io.StringIO(), width=160)
    console.print(EasyVqaSuite().show({"before": before, "after": again}))
    shown = console.file.getvalue()
    assert "answer: overall" in shown and "image: circle" in shown and "+0.000 ± 0.221" in shown  # 1 - 0.05 ** (1 / 12)


def test_fewer_items_when_quick():
    few = EasyVqaSuite()(Known(), settings(quick=True)).table
    assert few["answer"]["overall"]["items"] == 12 and few["answer"]["overall"]["by_item"] == [0.5] * 12


def test_items_are_spread_over_the_test_split():
    questions, captions = _rows("questions", 10), _rows("captions", 10_000)
    assert [task.index for task in questions] == list(range(10)) and len(captions) == 880
    assert len({task["image"].tobytes() for task in questions}) == 10


def test_it_is_registered_and_needs_text_or_images():
    assert isinstance(find_suite("easy_vqa"), EasyVqaSuite)
    with pytest.raises(ConfigError, match="needs a policy that generates text or images"):
        EasyVqaSuite().check(Strokes())
