"""How varied images are where prompts leave something open, counted by hand."""

import pytest

from motet.evaluation.scene_diversity import effective_numbers, open_values
from motet.shapes.scene import Scene, ShapeInstance

SCENE = Scene(4, (ShapeInstance(0, 1, "red", "star", "small"), ShapeInstance(2, 0, "blue", "star", "small")))


def group(**named):
    return {"count": 1, "shape": None, "colour": None, "size": None, **named}


def names(spec) -> list[str]:
    return sorted({name for name, _ in open_values(SCENE, spec)})


def test_values_by_hand():
    spec = {"groups": [group(count=2, shape="star")], "relations": []}
    cells, colours = [("cells", "b1"), ("cells", "a3")], [("colours", "red"), ("colours", "blue")]
    assert open_values(SCENE, spec) == [*cells, *colours, ("sizes", "small"), ("sizes", "small")]


@pytest.mark.parametrize(
    ("spec", "is_open"),
    [
        ({"groups": [group(shape="star", colour="red"), group(shape="star")]}, ["cells", "sizes"]),
        ({"groups": [group(shape="star", size="small")], "relations": [[0, "above", 1]]}, ["colours"]),
        ({"groups": [group(shape="star", size="small")], "relation": "above"}, ["colours"]),  # the small world's
        ({"groups": [], "total": 2, "absent": group(shape="heart")}, ["cells", "colours", "sizes"]),
        ({"groups": [], "total": 2, "absent": group(colour="black")}, ["cells", "shapes", "sizes"]),
        ({"groups": [], "more": [group(shape="star"), group(shape="heart", colour="red")]}, ["cells", "sizes"]),
    ],
)
def test_what_a_prompt_mentions_is_not_open(spec, is_open):
    assert names(spec) == is_open


def test_a_world_without_sizes_has_none():
    small = Scene(4, (ShapeInstance(0, 1, "red", "star"),))
    assert {name for name, _ in open_values(small, {"groups": [], "relation": None})} == {"cells", "colours", "shapes"}


def test_effective_numbers_by_hand():
    even = [("colours", colour) for colour in ("red", "blue", "black", "pink")]
    assert effective_numbers(even) == {"colours": 4.0}
    assert effective_numbers([("shapes", "star")] * 9) == {"shapes": 1.0}
    uneven = [("colours", "red")] * 3 + [("colours", "blue")]  # exp(3/4 ln 4/3 + 1/4 ln 4)
    assert effective_numbers(uneven) == {"colours": 1.75}
