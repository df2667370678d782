"""Opening data of every kind, and what is rejected."""

import json

import datasets
import numpy as np
import pytest
from PIL import Image

from motet.config import DataConfig
from motet.core.errors import ConfigError, DataError
from motet.data import open_rows

ROWS = [{"prompt": f"p{n}", "answer": n} for n in range(4)]
RED = Image.new("RGB", (3, 2), (255, 0, 0))


def opened(source, *needed, **settings):
    images = settings.pop("image_columns", ())
    return open_rows(DataConfig(source=str(source), **settings), needed, image_columns=images)


def lines(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture(params=["jsonl", "json", "json lines", "csv", "parquet", "saved", "saved dict", "folder"])
def source(request, tmp_path):
    """The same four rows in every kind of source."""
    data = datasets.Dataset.from_list(ROWS)
    path = tmp_path / f"data.{request.param.split()[0]}"
    match request.param:
        case "jsonl" | "json lines":
            lines(path)
        case "json":
            path.write_text(json.dumps(ROWS, indent=2))
        case "csv":
            path.write_text("prompt,answer\n" + "".join(f"{r['prompt']},{r['answer']}\n" for r in ROWS))
        case "parquet":
            data.to_parquet(path)
        case "saved":
            data.save_to_disk(path)
        case "saved dict":
            datasets.DatasetDict(train=data, test=data.select([3])).save_to_disk(path)
        case "folder":
            path.mkdir()
            data.to_parquet(path / "train.parquet")
    return path


def test_every_source_gives_the_same_rows(source):
    rows = opened(source, "prompt", "answer")
    assert (len(rows), rows.size, rows.columns) == (4, 4, ("prompt", "answer"))
    assert [rows.row(i) for i in range(4)] == ROWS
    tasks = list(rows)
    assert [task.index for task in tasks] == [0, 1, 2, 3] and tasks[2]["prompt"] == "p2"


def test_size_takes_the_first_rows(source):
    rows = opened(source, size=2)
    assert [task["prompt"] for task in rows] == ["p0", "p1"]
    with pytest.raises(IndexError):
        rows.row(2)
    with pytest.raises(ConfigError, match=r"data.size=5, but .* has 4 rows"):
        opened(source, size=5)


def test_missing_columns_are_found_at_open(source):
    with pytest.raises(DataError, match=r"has no column 'promt'; it has: prompt, answer. Did you mean 'prompt'") as e:
        opened(source, "promt")
    assert "data.columns.promt=NAME" in e.value.fix


def test_columns_are_renamed_even_crosswise(source):
    rows = opened(source, columns={"prompt": "answer", "answer": "prompt", "gold": "answer"})
    assert set(rows.columns) == {"prompt", "answer", "gold"}
    swapped = opened(source, "question", columns={"question": "prompt"})
    assert swapped.row(1) == {"question": "p1", "answer": 1} and swapped.columns == ("answer", "question")


def test_a_rename_of_a_column_that_is_not_there(source):
    with pytest.raises(DataError, match=r"data.columns.question='promt' is not a column.*Did you mean 'prompt'"):
        opened(source, columns={"question": "promt"})


def test_options_of_another_source_raise(tmp_path):
    with pytest.raises(ConfigError, match=r"data.options=\{'grid': 4\} is not supported by"):
        opened(lines(tmp_path / "x.jsonl"), options={"grid": 4})


def test_splits(tmp_path):
    data = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict(train=data, test=data.select([3])).save_to_disk(tmp_path / "d")
    assert opened(tmp_path / "d", split="test").row(0)["prompt"] == "p3"
    with pytest.raises(DataError, match="no split 'validation'; it has: train, test"):
        opened(tmp_path / "d", split="validation")
    with pytest.raises(ConfigError, match=r"data.split='test', but the file x.jsonl has no splits"):
        opened(lines(tmp_path / "x.jsonl"), split="test")
    data.save_to_disk(tmp_path / "one")
    with pytest.raises(ConfigError, match="saved without splits"):
        opened(tmp_path / "one", split="test")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"a": 1}\n\n{"a": }\n', r"Line 3 of x.jsonl is not valid JSON: JSONDecodeError"),
        ("x.jsonl", '{"a": 1}\n[1]\n', r"Line 2 of x.jsonl is a list, not an object"),
        ("x.jsonl", b'{"a": "\xff"}\n', r"Line 1 of x.jsonl is not valid JSON: UnicodeDecodeError"),
        ("x.jsonl", "", r"has no rows"),
        ("x.jsonl", "\n\n", r"has no rows"),
        ("x.jsonl", '[{"a": 1}]', r"Line 1 of x.jsonl is a list, not an object"),
        ("x.json", "[]", r"has no rows"),
        ("x.json", '[{"a": 1}, 2]', r"Item 1 of x.json is a int, not an object"),
        ("x.json", '[{"a": 1}', r"x.json is not valid JSON"),
        ("x.json", '{\n"a": 1\n}', r"Line 1 of x.json is not valid JSON"),
        ("x.csv", "", r"x.csv cannot be read"),
        ("x.csv", "a,b\n", r"has no rows"),
        ("x.csv", "a,b\n1,2\n3\n", r"x.csv cannot be read: .*Expected 2 columns, got 1"),
        ("x.csv", "a,a\n1,2\n", r"x.csv has two columns called 'a'"),
        ("x.parquet", "no parquet", r"x.parquet cannot be read"),
        ("x.zip", "a", r"has an unknown file type"),
    ],
)
def test_broken_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        opened(path, "a")


def test_empty_goes_before_renames(tmp_path):
    (tmp_path / "x.jsonl").write_text("")
    with pytest.raises(DataError, match="has no rows"):
        opened(tmp_path / "x.jsonl", columns={"prompt": "caption"})


def test_sources_that_do_not_exist(tmp_path):
    lines(tmp_path / "train.jsonl")
    with pytest.raises(DataError, match=r"does not exist.*Did you mean 'train.jsonl'"):
        opened(tmp_path / "trian.jsonl")
    with pytest.raises(DataError, match=r"There is no data at"):
        opened(tmp_path / "nowhere")


def test_csv_keeps_words_and_reads_any_export(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes('\ufeffprompt,answer\r\n"two\nlines",NA\r\n"a ""b""",None\r\n'.encode())
    rows = opened(path, "prompt")
    assert [rows.row(i) for i in (0, 1)] == [
        {"prompt": "two\nlines", "answer": "NA"},
        {"prompt": 'a "b"', "answer": "None"},
    ]


@pytest.mark.parametrize("by", [",", "\t"])
def test_golds_of_csv_are_text_as_written(tmp_path, by):
    """As types `True` is a boolean, which is rejected, and `NA` is null, which is not judged."""
    path = tmp_path / ("x.csv" if by == "," else "x.tsv")
    lines = [["question", "gold", "words", "level"], ["1", "True", "NA", "4"], ["2", "NA", "2020-01-01", "NA"]]
    path.write_text("".join(by.join(line) + "\n" for line in [*lines, ["3", "", "no", "5"]]))
    rows = opened(path, "question", columns={"answer": "gold"}, targets={"answer": "words"})
    assert [(row["question"], row["answer"], row["words"], row["level"]) for row in rows] == [
        ("1", "True", "NA", 4),
        ("2", "NA", "2020-01-01", None),
        ("3", None, "no", 5),
    ]
    path.write_text("".join(by.join(line) + "\n" for line in [["question", "answer"], ["1", "4"], ["2", ""]]))
    assert [row["answer"] for row in opened(path, "question")] == [4, None]


def test_lines_inside_csv_values_may_cross_the_blocks_that_it_is_read_in(tmp_path):
    text = "line\n" * 20_000
    (tmp_path / "x.csv").write_text("prompt,answer\n" + f'"{text}",4\n' * 30)  # 3 MB; pyarrow reads 1 MB at a time
    rows = opened(tmp_path / "x.csv", "prompt")
    assert len(rows) == 30 and rows.row(29) == {"prompt": text, "answer": 4}


def test_json_rows_may_differ(tmp_path):
    path = lines(tmp_path / "x.jsonl", [{"prompt": "p", "spec": {"a": 1}}, {"prompt": "q", "spec": {"b": [2]}, "x": 3}])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    rows = opened(path, "prompt", "x")
    assert rows.row(0) == {"prompt": "p", "spec": {"a": 1}, "x": None}
    assert rows.row(1)["spec"] == {"b": [2]}
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf [{"prompt": "p"}]')
    assert len(opened(tmp_path / "x.json")) == 1


@pytest.mark.parametrize("prompt", [None, "", [], 3])
def test_an_unusable_prompt_names_its_line(tmp_path, prompt):
    path = lines(tmp_path / "x.jsonl", [{"prompt": "p"}, {"prompt": prompt}])
    with pytest.raises(DataError, match=r"Line 2 of x.jsonl, column 'prompt', contains .*, expected a text"):
        opened(path, "prompt").row(1)
    assert opened(path).row(1) == {"prompt": prompt}


def test_images_by_path_lie_beside_the_file(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    RED.save(tmp_path / "data" / "red.png")
    lines(
        tmp_path / "data" / "x.jsonl",
        [{"photo": "red.png", "images": ["red.png"], "target": "red.png"}],
    )
    monkeypatch.chdir(tmp_path)
    rows = opened("data/x.jsonl", "image", columns={"image": "photo"}, image_columns=("target",))
    row = rows.row(0)
    for image in (row["image"], row["images"][0], row["target"]):
        assert image.mode == "RGB" and image.getpixel((0, 0)) == (255, 0, 0)
    assert opened("data/x.jsonl").row(0)["target"] == "red.png"
    lines(tmp_path / "data" / "x.jsonl", [{"image": "red.png"}, {"image": "no.png"}])
    with pytest.raises(DataError, match=r"Line 2 of x.jsonl, column 'image': the image 'no.png' cannot be read"):
        opened("data/x.jsonl")


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_images_of_datasets(tmp_path, kind):
    grey = Image.fromarray(np.zeros((2, 2), np.uint8))
    features = datasets.Features({"photo": datasets.Image(), "images": datasets.List(datasets.Image())})
    data = datasets.Dataset.from_dict({"photo": [RED, grey], "images": [[grey, RED], []]}, features=features)
    data = data.map(lambda row: row)  # encoded, as saved
    data.to_parquet(tmp_path / "x.parquet") if kind == "parquet" else data.save_to_disk(tmp_path / "x.saved")
    rows = opened(tmp_path / f"x.{kind}", "image", columns={"image": "photo"})
    assert [rows.row(i)["image"].getpixel((0, 0)) for i in (0, 1)] == [(255, 0, 0), (0, 0, 0)]
    assert [image.mode for image in rows.row(0)["images"]] == ["RGB", "RGB"]
    assert [image.getpixel((0, 0)) for image in list(rows)[1].images] == [(0, 0, 0)]


def test_a_broken_image_of_datasets_names_its_row(tmp_path):
    features = datasets.Features({"photo": datasets.Image()})
    data = datasets.Dataset.from_dict({"photo": [RED, {"bytes": b"x", "path": None}]}, features=features)
    data.save_to_disk(tmp_path / "d")
    with pytest.raises(DataError, match=r"Row 1 of d, column 'image': the image \(bytes\) cannot be read"):
        opened(tmp_path / "d", columns={"image": "photo"}).row(1)


def test_image_and_images_stand_for_each_other(tmp_path):
    RED.save(tmp_path / "red.png")
    assert opened(lines(tmp_path / "x.jsonl", [{"images": ["red.png"]}]), "image").row(0)["images"]
    with pytest.raises(DataError, match="no column 'image'"):
        opened(lines(tmp_path / "x.jsonl"), "image")


def test_the_hub(monkeypatch):
    asked = []

    def load_dataset(*args, **settings):
        asked.append((args, settings))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("motet.weights.hub._ask_hub", lambda source, kind: None)
    rows = opened("somebody/something", "prompt", split="test", options={"name": "main"})
    assert rows.row(3) == ROWS[3]
    assert asked == [(("somebody/something",), {"split": "test", "name": "main"})]
    with pytest.raises(ConfigError, match=r"unknown key 'revison'. Did you mean 'revision'"):
        opened("somebody/something", options={"revison": "x"})


def test_the_hub_says_no(monkeypatch):
    def load_dataset(*args, **settings):
        raise ValueError("Unknown split\nmore")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        DataError, match=r"'shape', split 'train', cannot be loaded: ValueError: Unknown split.*'shapes'"
    ):
        opened("shape")


def test_the_shapes_world():
    endless = open_rows(DataConfig(source="shapes"), ("prompt", "image", "spec"), seed=3)
    assert endless.size is None and endless.row(1000)["image"].mode == "RGB"
    with pytest.raises(TypeError, match="infinite"):
        len(endless)
    assert next(iter(endless))["prompt"] == endless.row(0)["prompt"]
    finite = open_rows(DataConfig(source="shapes", size=3), ("prompt",), seed=3)
    assert len(finite) == 3 and finite.row(2)["prompt"] == endless.row(2)["prompt"]
    other = open_rows(DataConfig(source="shapes", size=3), seed=4)
    assert [finite.row(i)["scene"] for i in range(3)] != [other.row(i)["scene"] for i in range(3)]
    # The target as the real image, which the cycle compares an image with.
    renamed = open_rows(DataConfig(source="shapes", columns={"image": "target"}), ("prompt", "image"), seed=3)
    assert "target" not in renamed.columns
    assert renamed.row(4)["image"].tobytes() == endless.row(4)["target"].tobytes()
    with pytest.raises(DataError, match=r"the shapes world .train. has no column 'solutoin'.*'solution'"):
        open_rows(DataConfig(source="shapes"), ("solutoin",))
