"""Files as people have them: loaded, or rejected with how to convert them."""

import gzip
import io
import json
import tarfile

import datasets
import pytest
from PIL import Image

from motet.config import DataConfig
from motet.core.errors import DataError
from motet.data import open_rows

ROWS = [
    {"prompt": "the digit six", "image": "pictures/6.png", "question": "Which digit?", "answer": "six"},
    {"prompt": "the digit two", "image": "pictures/2.png", "question": "Which digit?", "answer": "two"},
]
COLOURS = {"6": (255, 0, 0), "2": (0, 0, 255)}


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data" / "pictures").mkdir(parents=True)
    for name, colour in COLOURS.items():
        Image.new("RGB", (3, 2), colour).save(tmp_path / "data" / "pictures" / f"{name}.png")
    return tmp_path / "data"


def opened(source, *needed, **settings):
    return open_rows(DataConfig(source=str(source), **settings), needed or ("question",))


def jsonl(rows=ROWS):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def separated(by):
    return "".join(by.join(values) + "\n" for values in [ROWS[0].keys(), *(row.values() for row in ROWS)]).encode()


FILES = {
    "rows.jsonl": jsonl(),
    "rows.jsonl.gz": gzip.compress(jsonl()),
    "rows.JSONL.GZ": gzip.compress(jsonl()),
    "rows.json": json.dumps(ROWS).encode(),
    "rows.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "nested.json": json.dumps({"version": 1, "data": ROWS}, indent=1).encode(),
    "rows.csv": separated(","),
    "rows.csv.gz": gzip.compress(separated(",")),
    "rows.tsv": separated("\t"),
    "rows.v2.tsv": b"\xef\xbb\xbf" + separated("\t").replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_load(folder, name, monkeypatch):
    """Paths of images begin beside the file, wherever the run is started."""
    (folder / name).write_bytes(FILES[name])
    monkeypatch.chdir(folder.parent)
    rows = opened(f"data/{name}")
    assert [task["answer"] for task in rows] == ["six", "two"]
    assert [task["image"].getpixel((0, 0)) for task in rows] == list(COLOURS.values())


def test_one_prompt_a_line(folder):
    """Flow-GRPO's prompts."""
    (folder / "train.txt").write_bytes(b"\xef\xbb\xbfthe digit six\r\n\n the digit, two \n")
    rows = opened(folder / "train.txt", "prompt")
    assert [task["prompt"] for task in rows] == ["the digit six", "the digit, two"]
    (folder / "train.txt").write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"Line 2 of train.txt is not valid UTF-8"):
        opened(folder / "train.txt", "prompt")


def test_samples_of_webdataset(folder):
    with tarfile.open(folder / "wds-000.tar", "w") as tar:
        for number, row in enumerate(ROWS):
            image = (folder / row["image"]).read_bytes()
            answers = json.dumps({key: row[key] for key in ("question", "answer")}).encode()
            for ending, content in (("png", image), ("txt", row["prompt"].encode()), ("json", answers)):
                member = tarfile.TarInfo(f"{number:04}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    rows = opened(folder / "wds-000.tar", "question", columns={"image": "png", "prompt": "txt"})
    assert [(t["prompt"], t["answer"]) for t in rows] == [("the digit six", "six"), ("the digit two", "two")]
    assert [task["image"].getpixel((0, 0)) for task in rows] == list(COLOURS.values())


@pytest.mark.parametrize("source", ["folder", "data_files"])
def test_paths_of_a_loaded_folder_begin_there(folder, source, monkeypatch):
    """They were looked for in the current folder, beside which there may be other images of the same name."""
    (folder / "train.jsonl").write_bytes(jsonl())
    monkeypatch.chdir(folder.parent)
    settings = {"options": {"data_files": "data/train.jsonl"}} if source == "data_files" else {}
    if source == "folder":
        for name in COLOURS:
            (folder / "pictures" / f"{name}.png").rename(folder / f"{name}.png")
        (folder / "pictures").rmdir()
        (folder / "train.jsonl").write_bytes(jsonl().replace(b"pictures/", b""))
        for name in COLOURS:  # a folder of data files, not of images
            (folder / f"{name}.png").rename(folder / f"{name}.dat")
        (folder / "train.jsonl").write_bytes(jsonl().replace(b"pictures/", b"").replace(b".png", b".dat"))
    rows = opened("data" if source == "folder" else "json", **settings)
    assert [task["image"].getpixel((0, 0)) for task in rows] == list(COLOURS.values())


@pytest.mark.parametrize(
    ("name", "content", "columns", "problem", "fix"),
    [
        (
            "sharegpt.jsonl",
            {
                "messages": [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "six"}],
                "images": ["pictures/6.png"],
            },
            {"question": "messages"},
            "Line 1 of sharegpt.jsonl, column 'question': The chat ends with an assistant turn",
            'messages[:-1], "answer": messages[-1]',
        ),
        (
            "llava.jsonl",
            {
                "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "six"}],
                "image": "pictures/6.png",
            },
            {"question": "conversations"},
            "Line 1 of llava.jsonl, column 'question': Message 0 is",
            '"content": m["value"]',
        ),
        ("rows.xlsx", {}, {}, "has an unknown file type", "pandas.read_excel('rows.xlsx').to_json("),
        ("rows.jsonl.gz", {}, {}, "rows.jsonl.gz cannot be read: BadGzipFile", "correct the file"),
        ("rows.tar", {}, {}, "rows.tar cannot be read", "correct the file"),
        (
            "rows.jsonl",
            {"question": "?", "notes": ["cut \ud83d off"]},
            {},
            r"Line 1 of rows.jsonl holds '\\ud83d', half of a surrogate pair",
            "correct or remove",
        ),
    ],
)
def test_files_that_raise(folder, name, content, columns, problem, fix):
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(DataError, match=problem) as refusal:
        opened(folder / name, columns=columns)
    assert fix in refusal.value.fix


def test_images_of_datasets_are_not_decoded_by_pillows_choice(folder):
    """Also in columns that motet has no name for, and inside of chats."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n"
    png = (folder / "pictures" / "6.png").read_bytes()
    part = {"type": datasets.Value("string"), "text": datasets.Value("string"), "image": datasets.Image()}
    message = {"role": datasets.Value("string"), "content": datasets.List(part)}
    features = datasets.Features(
        {
            "thumbnail": datasets.Image(),
            "frames": datasets.List(datasets.Image()),
            "question": datasets.List(message),
        }
    )

    def save(thumbnail, frame, inner):
        parts = [
            {"type": "image", "text": None, "image": {"bytes": inner}},
            {"type": "text", "text": "?", "image": None},
        ]
        row = {
            "thumbnail": {"bytes": thumbnail},
            "frames": [{"bytes": frame}],
            "question": [{"role": "user", "content": parts}],
        }
        datasets.Dataset.from_list([row], features=features).to_parquet(folder / "x.parquet")

    save(png, png, png)
    task = opened(folder / "x.parquet").task(0)
    shown = [task["thumbnail"], *task["frames"], *task.question.images]
    assert [image.getpixel((0, 0)) for image in shown] == [COLOURS["6"]] * 3
    for where, contents in (("thumbnail", (eps, png, png)), ("frames", (png, eps, png)), ("question", (png, png, eps))):
        save(*contents)
        with pytest.raises(DataError, match=rf"Row 0 of x.parquet, column '{where}'.*it is not one of PNG"):
            opened(folder / "x.parquet")


def test_the_check_at_the_start_has_a_time_limit(folder, monkeypatch, capsys):
    monkeypatch.setattr("motet.data.rows.CHECK_SECONDS", -1)
    (folder / "rows.jsonl").write_bytes(jsonl([{"question": "?", "image": "none.png"}]))
    rows = opened(folder / "rows.jsonl")
    assert "the first 0 of 1 rows of rows.jsonl were checked" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"Line 1 of rows.jsonl, column 'image'"):
        rows.task(0)


def test_a_corrupt_gzip_is_named(folder):
    packed = bytearray(gzip.compress(jsonl()))
    packed[10] = 0xFF  # the first byte after the header
    (folder / "rows.jsonl.gz").write_bytes(packed)
    with pytest.raises(DataError, match=r"rows.jsonl.gz cannot be read: error"):
        opened(folder / "rows.jsonl.gz")


def test_surrogates_in_raw_bytes_are_named(folder):
    (folder / "rows.jsonl").write_bytes(b'{"question": "a\xed\xa0\xbd"}\n')
    with pytest.raises(DataError, match=r"Line 1 of rows.jsonl holds .* half of a surrogate pair"):
        opened(folder / "rows.jsonl")
    (folder / "rows.jsonl").write_text('{"question": "한"}\n', encoding="utf-8")
    assert opened(folder / "rows.jsonl").row(0) == {"question": "한"}
