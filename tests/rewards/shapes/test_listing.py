"""The reward of the objects that an answer lists, by hand and against the solutions of both worlds."""

from typing import Any

import pytest

from motet.core.errors import DataError, RewardError
from motet.rewards.shapes.listing import listed_objects
from motet.shapes.world import open_world

SCENE = "a1 small red circle, c2 large blue star, d4 large blue star"


def score(text: str, scene: Any = SCENE) -> float | None:
    (value,) = listed_objects([[{"role": "assistant", "content": text}]], scene=[scene])
    return value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"<think> {SCENE}, so three</think><answer> three</answer>", 1.0),
        ("a1 small red circle, c2 large blue star, d4 large black star", 2 * 2 / (3 + 3)),  # a wrong colour
        ("a1 large red circle", 0.0),  # a wrong size
        ("a2 small red circle, d4 large blue star", 2 * 1 / (2 + 3)),  # a wrong cell
        ("c2 large blue star one, d4 large blue star two", 2 * 2 / (2 + 3)),  # numbered, and one is missing
        ("a1 small red circle, a1 small red circle, small red circle a1, so red", 2 * 1 / (1 + 3)),
        ("a1 red circle", 0.0),  # the large world's objects have a size
        ("A1  Small red\ncircle", 2 * 1 / (1 + 3)),
        ("a1 small red circles", 0.0),
        ("aa1 small red circle", 0.0),
        ("looks like three", 0.0),
        ("", 0.0),
    ],
)
def test_score_is_f1_of_distinct_objects(text: str, expected: float) -> None:
    assert score(text) == pytest.approx(expected)


def test_more_objects_than_present_cost_precision() -> None:
    everywhere = ", ".join(f"{column}{row} small red circle" for column in "abcd" for row in range(1, 5))
    assert score(everywhere) == pytest.approx(2 * 1 / (16 + 3))


def test_empty_scene_is_matched_by_no_object() -> None:
    assert score("so zero", "nothing") == 1.0
    assert score("a1 small red circle", "nothing") == 0.0
    assert score("a1 red circle", "nothing") == 0.0


@pytest.mark.parametrize("name", ["p16 red circle", "p16 small red circle"])
def test_grids_have_up_to_sixteen_rows_and_columns(name: str) -> None:
    assert score(name, name) == 1.0
    assert score(name.replace("p16", "p1"), name) == 0.0


def test_small_world_has_no_sizes() -> None:
    assert score("a1 red circle, b2 blue square, so two", "a1 red circle, b2 blue square") == 1.0
    assert score("a1 small red circle, b2 blue square", "a1 red circle, b2 blue square") == pytest.approx(2 / 4)
    assert score("xa1 red circle", "a1 red circle") == 0.0


def test_rows_without_scene_are_not_scored() -> None:
    assert score("a1 small red circle", None) is None
    assert listed_objects([[]], scene=[SCENE]) == [None]


def test_last_text_is_scored() -> None:
    image: Any = {"type": "image", "image": None}
    completion = [
        {"role": "assistant", "content": "looks like three"},
        {"role": "assistant", "content": [image, {"type": "text", "text": SCENE}]},
    ]
    assert listed_objects([completion], scene=[SCENE]) == [1.0]
    with pytest.raises(RewardError, match="'listed_objects' got a completion without text"):
        listed_objects([[{"role": "assistant", "content": [image]}]], scene=[SCENE])


@pytest.mark.parametrize("scene", ["a red circle", "a1 red circle and b2 blue star", "", "a1 small red dog", 7])
def test_other_scenes_are_rejected(scene: Any) -> None:
    with pytest.raises(DataError, match=r"column 'scene'.*listed_objects.*nothing"):
        score("a1 small red circle", scene)


@pytest.mark.parametrize("world", ["small", "large"])
def test_full_solutions_of_the_world_score_one(world: str) -> None:
    options = {"world": world, "cot_fraction": 1.0} | ({"short_cot_fraction": 0.0} if world == "large" else {})
    rows = open_world("train", seed=3, options=options)
    for index in range(200):
        row = rows.row(index)
        assert score(row["solution"], row["scene"]) == 1.0, row["solution"]
