"""`data.source: mixture`: sources interleaved by weight, each with its own columns, folder and order."""

import json
from collections import Counter

import pytest
from PIL import Image

from motet.config import DataConfig
from motet.core.errors import ConfigError, DataError
from motet.data import ResumableSampler, open_rows


@pytest.fixture
def sources(tmp_path):
    """Three rows with images beside the file, and two with another column name."""
    (tmp_path / "a").mkdir()
    for n in range(3):
        Image.new("RGB", (2, 2), (n, 0, 0)).save(tmp_path / "a" / f"{n}.png")
    rows = [{"question": f"a{n}", "answer": str(n), "image": f"{n}.png"} for n in range(3)]
    (tmp_path / "a" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.csv").write_text("problem,answer,level\nb0,0,easy\nb1,1,hard\n")
    return [
        {"source": str(tmp_path / "a" / "rows.jsonl"), "weight": 3.0},
        {"source": str(tmp_path / "b.csv"), "columns": {"question": "problem"}},
    ]


def mixed(sources, seed=0, **settings):
    return open_rows(DataConfig(source="mixture", options={"sources": sources}, **settings), ("question",), seed=seed)


def test_rows_come_by_weight_and_every_source_is_used_up_before_it_repeats(sources):
    rows = mixed(sources)
    assert set(rows.columns) == {"question", "answer", "image", "level"} and rows.size is None
    drawn = [rows.row(i) for i in range(120)]
    counts = Counter(row["question"][0] for row in drawn)
    assert 70 < counts["a"] < 110  # 90 expected, standard deviation 4.7
    own = [row["question"] for row in drawn if row["question"][0] == "a"]
    assert all(sorted(own[n : n + 3]) == ["a0", "a1", "a2"] for n in range(0, len(own) - 3, 3))
    assert len({tuple(own[n : n + 3]) for n in range(0, 30, 3)}) > 1  # reshuffled


def test_images_are_relative_to_their_own_source_and_missing_columns_empty(sources):
    for row in (mixed(sources).row(i) for i in range(20)):
        if row["question"][0] == "a":
            assert row["image"].getpixel((0, 0)) == (int(row["answer"]), 0, 0) and row["level"] is None
        else:
            assert row["image"] is None and row["level"] in ("easy", "hard")


def test_row_i_depends_on_the_seed_and_i_alone(sources):
    late, early, other = mixed(sources), mixed(sources), mixed(sources, seed=1)
    at_once = late.row(57)["question"]
    in_order = [early.row(i)["question"] for i in range(58)]
    assert at_once == in_order[57]
    assert in_order != [other.row(i)["question"] for i in range(58)]


def test_a_resumed_sampler_goes_on_where_it_stood(sources):
    whole = [task.columns["question"] for task in ResumableSampler(mixed(sources), 0).next(20)]
    first, second = ResumableSampler(mixed(sources), 0), ResumableSampler(mixed(sources), 0)
    begun = [task.columns["question"] for task in first.next(7)]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert begun + [task.columns["question"] for task in second.next(13)] == whole


def test_texts_are_those_of_all_sources_once(sources):
    assert [row["question"] for _, row in mixed(sources).texts()] == ["a0", "a1", "a2", "b0", "b1"]


def test_the_split_is_that_of_sources_without_their_own(sources):
    world = {"source": "shapes", "columns": {"question": "prompt"}}
    rows = open_rows(DataConfig(source="mixture", split="test", options={"sources": [world, sources[0]]}))
    held_out = [{**world, "split": "held_out"}, sources[0]]
    other = open_rows(DataConfig(source="mixture", split="test", options={"sources": held_out}))
    assert "(test)" in rows.source.name and "(held_out)" in other.source.name


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda s: s[:1], {}, "data.options.sources"),
        (lambda s: [*s, {"source": "shapes", "wieght": 2.0}], {}, "wieght"),
        (lambda s: [s[0], {**s[1], "weight": 0.0}], {}, "weight"),
        (lambda s: [s[0], {"source": "mixture"}], {}, "mixture itself"),
        (lambda s: s, {"size": 3}, "data.size cannot be set for a mixture"),
        (lambda s: s, {"columns": {"question": "answer"}}, "data.columns cannot be set for a mixture"),
    ],
)
def test_settings_that_are_rejected(sources, change, settings, message):
    with pytest.raises(ConfigError) as error:
        mixed(change(sources), **settings)
    assert message in str(error.value)


def test_a_row_of_a_source_that_cannot_be_read_is_found_at_open(sources, tmp_path):
    (tmp_path / "a" / "1.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"Line 2 of rows\.jsonl"):
        mixed(sources)
