"""All invalid rows at once, what only some rows lack, and images in a column that nothing uses."""

import json
from pathlib import Path

import pytest
from PIL import Image

from motet.config.schema import DataConfig
from motet.core.errors import DataError
from motet.core.task import Task
from motet.data import ResumableSampler, Rows, open_rows, warn_unused_images
from motet.data.rows import MAX_FAULTS
from motet.data.summary import summarize_rows

NAMES = {"image": "photo", "question": "query", "answer": "label"}


def file_of(folder: Path, *rows: dict[str, str]) -> Path:
    """A file of these rows, as a spreadsheet program on Windows writes it, beside an image."""
    Image.effect_noise((64, 64), 50.0).save(folder / "one.png")
    full = [{"photo": "one.png", "query": "which color?", "label": "gray"} | row for row in rows]
    text = "\r\n".join(json.dumps(row) for row in full)
    (folder / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    return folder / "rows.jsonl"


def opened(path: Path, columns: dict[str, str] | None = None, *, check: bool = True) -> Rows:
    config = DataConfig(source=str(path), columns=NAMES if columns is None else columns)
    return open_rows(config, ["question"], check=check)


def test_all_invalid_rows_are_named_at_once(tmp_path: Path) -> None:
    path = file_of(tmp_path, {}, {"photo": "none.png"}, {"query": ""}, {}, {"photo": "rows.jsonl"})
    with pytest.raises(DataError) as caught:
        opened(path)
    assert caught.value.problem.startswith("rows.jsonl has 3 invalid rows: (1) Line 2 of rows.jsonl, column 'image'")
    for text in ("'none.png' cannot be read: the file does not exist", "(2) Line 3", "(3) Line 5"):
        assert text in caught.value.problem
    assert caught.value.fix.startswith("(1, 3) correct the image") and "(2) fill it in" in caught.value.fix


def test_one_invalid_row_has_a_message_of_its_own_and_many_are_cut_short(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        opened(file_of(tmp_path, {}, {"query": ""}))
    assert caught.value.problem.startswith("Line 2 of rows.jsonl, column 'question'")
    with pytest.raises(DataError) as caught:
        opened(file_of(tmp_path, *[{"query": ""}] * (MAX_FAULTS + 3)))
    assert f"at least {MAX_FAULTS} invalid rows" in caught.value.problem
    assert f"Line {MAX_FAULTS + 1} " not in caught.value.problem


def test_the_summary_names_rows_that_lack_what_others_have(tmp_path: Path) -> None:
    path = file_of(tmp_path, {}, {}, {"label": ""})
    rows = [json.loads(line) for line in path.read_text("utf-8-sig").splitlines()]
    rows[1]["img"] = rows[1].pop("photo")
    path.write_text("\n".join(map(json.dumps, rows)))
    assert summarize_rows(opened(path), ["answer"]) == [
        "3 rows of rows.jsonl; 2 with an image.",
        "Warning: 1 row has no image, the others have one: Line 2.",
        "Warning: 1 row has nothing in the column 'answer': Line 3.",
    ]


def test_the_summary_reads_images_to_the_end(tmp_path: Path) -> None:
    path = file_of(tmp_path, {}, {})
    image = (tmp_path / "one.png").read_bytes()
    (tmp_path / "one.png").write_bytes(image[: len(image) // 2])
    with pytest.raises(DataError, match="has 2 invalid rows"):
        summarize_rows(opened(path), [])


def test_paths_of_images_in_a_column_that_is_not_mapped_are_warned_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_of(tmp_path, {})
    warn_unused_images(opened(path), ["question"])
    assert capsys.readouterr().err == ""
    rows = opened(path, {"question": "query"})
    warn_unused_images(rows, ["question", "photo"])  # a reward reads it
    assert capsys.readouterr().err == ""
    warn_unused_images(rows, ["question"])
    assert "set data.columns.image=photo" in capsys.readouterr().err


def test_a_line_that_is_cut_off_says_so_whatever_ends_it(tmp_path: Path) -> None:
    path = file_of(tmp_path, {}, {})
    path.write_bytes(path.read_bytes()[:-3] + b"\r\n")
    with pytest.raises(
        DataError, match=r"Line 2 of rows.jsonl is not valid JSON: JSONDecodeError: Unterminated string"
    ):
        opened(path)


def test_tasks_of_later_epochs_name_the_line_of_their_row(tmp_path: Path) -> None:
    sampler = ResumableSampler(opened(file_of(tmp_path, {}, {})), seed=0)
    later = sampler.peek(6)[-1]
    assert later.index in (4, 5) and later.location == f"Line {later.index - 3} of rows.jsonl"
    with pytest.raises(DataError, match=rf"{later.location} has no column 'absent'"):
        later["absent"]
    assert Task(7, {}).location == "Row 7"
