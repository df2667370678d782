"""Agreement with GenEval's own evaluator on 500 synthetic detector outputs, and defects that copies of it have.

`gen_eval_verdicts.json` holds the results of djghosh13/geneval, commit af4902f: its file evaluation/evaluate_images.py
ran `evaluate_image` with its default options on the detections of `gen_eval_cases`, its detector and its colour
classifier replaced by the case's own. `cases_sha256` says that these are still the same cases.
"""

import hashlib
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image

from motet.rewards.image import gen_eval
from motet.rewards.image.detector import Instance
from motet.rewards.image.gen_eval import COLOURS, GenEvalSpec, Thresholds, evaluate_images
from tests.rewards.image.gen_eval_cases import KINDS, Case, cases

VERDICTS = json.loads((Path(__file__).parent / "gen_eval_verdicts.json").read_text())
NO_MASK = torch.zeros(0, 0, dtype=torch.bool)


def detected(case: Case) -> tuple[list[Instance], dict[int, str]]:
    """The instances of a case, most confident first, and the colour of each by identity."""
    instances = [Instance(f.name, f.score, tuple(map(float, f.box)), NO_MASK) for f in case.found]  # type: ignore[arg-type]
    colours = {id(instance): f.colour for instance, f in zip(instances, case.found, strict=True)}
    return sorted(instances, key=lambda instance: -instance.score), colours


def is_correct(case: Case, monkeypatch) -> bool:
    instances, colours = detected(case)

    def classifier(image, clip):
        return lambda group, name: [colours[id(instance)] for instance in group]

    monkeypatch.setattr(gen_eval, "_ColourClassifier", classifier)
    asked = case.metadata
    spec = GenEvalSpec.of(asked["include"], asked.get("exclude"), asked["tag"])
    image = Image.new("RGB", (1, 1))
    (result,) = evaluate_images([image], [spec], lambda images: [instances], None, Thresholds())
    return bool(result.correct)


def test_all_500_verdicts_are_those_of_the_original(monkeypatch):
    drawn = cases()
    content = [[case.kind, case.metadata, [[f.name, f.box, f.score, f.colour] for f in case.found]] for case in drawn]
    assert hashlib.sha256(json.dumps(content).encode()).hexdigest() == VERDICTS["cases_sha256"]
    original = [verdict == "1" for verdict in VERDICTS["correct"]]
    differ = [n for n, case in enumerate(drawn) if is_correct(case, monkeypatch) != original[n]]
    assert len(original) == 500 and differ == []
    assert sum(original) > 100 and set(Counter(case.kind for case in drawn)) == set(KINDS)


# --- defects of copies of GenEval's code


def instance(name, box=(0, 0, 10, 10)):
    mask = torch.zeros(100, 100, dtype=torch.bool)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = True
    return Instance(name, 0.95, tuple(map(float, box)), mask)  # type: ignore[arg-type]


def result(found, include, colour="red"):
    spec = GenEvalSpec.of(include, None, "x")
    return gen_eval.evaluate_clauses(found, spec, lambda group, name: [colour] * len(group))


def test_a_failed_position_is_counted_once():
    """A copy appends a 0 and then a 1 for it, so that a failed position is half right."""
    include = [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}]
    one = result([instance("dog", (0, 0, 10, 10)), instance("cat", (60, 0, 70, 10))], include)
    assert one.partial == pytest.approx(2 / 3) and one.correct == 0


@pytest.mark.parametrize("there", [0, 2, 5, 40])
def test_the_score_of_a_count_is_within_0_and_1(there):
    """A copy gives 1 - |asked - found| / asked without a lower bound."""
    assert 0 <= result([instance("dog")] * there, [{"class": "dog", "count": 2}]).partial <= 1


def test_strict_is_a_score_of_its_own():
    """A copy takes an option for the exact count that changes nothing."""
    one = result([instance("dog")] * 3, [{"class": "dog", "count": 2}])
    assert (one.correct, one.strict) == (1, 0)


def test_crops_stay_in_memory_when_images_are_scored_at_the_same_time(tmp_path, monkeypatch):
    """A copy writes all crops to one file, whatever number of workers read it."""

    class Pixel:
        """Sees the colour of the crop's middle."""

        def images(self, crops):
            seen = [("red", "blue").index("red" if crop.getpixel((5, 5))[0] > 128 else "blue") for crop in crops]
            return torch.eye(len(COLOURS))[[COLOURS.index(("red", "blue")[index]) for index in seen]]

        def texts(self, texts):
            return torch.eye(len(COLOURS)).repeat_interleave(3, dim=0)

    monkeypatch.chdir(tmp_path)
    colours = ["red", "blue"] * 16
    spec = GenEvalSpec.of([{"class": "dog", "count": 1, "color": "red"}], None, "colors")

    def score(colour):
        image = Image.new("RGB", (100, 100), colour)
        return evaluate_images([image], [spec], lambda images: [[instance("dog")]], Pixel(), Thresholds())[0].correct

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(score, colours)) == [float(colour == "red") for colour in colours]
    assert list(tmp_path.iterdir()) == []


def test_images_of_a_batch_are_scored_by_their_own_rows():
    """A copy scores 0 for every image where its detector's names are not GenEval's; see also test_gen_eval."""
    images = [Image.new("RGB", (100, 100))] * 2
    specs = [GenEvalSpec.of([{"class": name, "count": 1}], None, "x") for name in ("dog", "cat")]
    found = [[instance("dog")], [instance("dog")]]
    results = evaluate_images(images, specs, lambda _: found, None, Thresholds())
    assert [one.correct for one in results] == [1, 0] and results[1].counts == {"dog": 1}
