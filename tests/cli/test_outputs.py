"""Files that commands write: refused before the work begins, never overwritten unasked, and a full disk is one line."""

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from motet.cli.outputs import IMAGE_FORMATS, refuse_output, show_numbers, write_image, write_numbers, write_output
from motet.core.errors import OutputError
from tests.runs import WORLD, motet_command

ROOT = Path(__file__).parent.parent.parent
SMALL = ["--size", "6", "--held-out-size", "4", "--pass-at", "2", "--max-tokens", "8"]
SMALL += [text for name, value in WORLD.items() for text in ("--world", f"{name}={value}")]


def test_what_cannot_be_written_is_refused_before_any_work(tmp_path, capsys):
    """The checkpoint does not exist: it is not even looked for."""
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "there.json").write_text("mine")
    (tmp_path / "there.PNG").write_text("mine")
    refused = [
        (["sample", "none", "x", "--out", tmp_path], "is a folder", f"{tmp_path / 'out.png'}"),
        (["sample", "none", "x", "--out", tmp_path / "folder.png"], "is a folder", "name a file in it"),
        (["sample", "none", "x", "--out", tmp_path / "a.txt"], "unknown file type", ".png, .jpg, .jpeg, .webp"),
        (["sample", "none", "x", "--out", tmp_path / "a"], "unknown file type", ".png"),
        (["sample", "none", "x", "--out", tmp_path / "there.PNG"], "exists", "--overwrite"),
        (["sample", "none", "x", "--out", tmp_path / "there.json" / "a.png"], "there.json' is not a folder", "folder"),
        (["eval", "none", "--json", tmp_path / "there.json"], "exists", "--overwrite"),
        (["eval", "none", "--json", tmp_path], "is a folder", "out.json"),
        (["bench", "rollout", "none", "--json", tmp_path / "there.json"], "exists", "--overwrite"),
        (["bench", "rewards", "none", "--json", tmp_path / "there.json"], "exists", "--overwrite"),
        (["data", "none", "--out", tmp_path / "there.PNG"], "exists", "--overwrite"),
        (["bench", "step", "none", "--json", tmp_path / "there.json"], "exists", "--overwrite"),
    ]
    for command, problem, fix in refused:
        answer = motet_command(capsys, *command)
        assert answer.code == 2 and len(answer.err.splitlines()) == 1 and "Fix: " in answer.err, answer.err
        assert problem in answer.err and fix in answer.err, answer.err
    assert (tmp_path / "there.json").read_text() == "mine" and (tmp_path / "there.PNG").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_others_is_refused(tmp_path):
    (tmp_path / "theirs").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="may not write"):
        refuse_output("--json", tmp_path / "theirs" / "a.json", overwrite=False)


def test_a_picture_is_of_the_kind_that_its_name_says(tmp_path):
    for suffix, kind in IMAGE_FORMATS.items():
        path = tmp_path / "new" / f"a{suffix.upper()}"
        write_image("--out", path, Image.new("RGB", (8, 8), "red"))
        assert Image.open(path).format == kind
    assert not list(tmp_path.rglob("*.partial"))


def test_a_device_is_written_to(tmp_path):
    refuse_output("--json", Path("/dev/stdout"), overwrite=False)
    write_output("--json", Path("/dev/null"), b"x")
    assert not Path("/dev/null").is_file()
    os.mkfifo(tmp_path / "fifo")
    refuse_output("--json", tmp_path / "fifo", overwrite=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_is_one_line():
    with pytest.raises(OutputError, match=r"'/dev/full' cannot be written: No space left on device") as caught:
        write_numbers(Path("/dev/full"), {"a": float("nan")})
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_nothing_and_keeps_what_was(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("mine")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_output("--json", tmp_path / "a.json", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"] and (tmp_path / "a.json").read_text() == "mine"


def test_eval_shows_its_result_before_it_writes(tiny_checkpoint, capsys):
    """Hours of measuring must not be lost to a full disk."""
    answer = motet_command(capsys, "eval", tiny_checkpoint, *SMALL, "--json", "/dev/full")
    assert answer.code == 2 and "draw: overall" in answer.out and "No space left" in answer.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_standard_output_that_is_full_or_closed(tiny_checkpoint, tmp_path):
    """One line and status 2; a reader that went away is status 1 in silence; the numbers are written all the same."""
    code = "import motet.cli; motet.cli.main()"
    command = [sys.executable, "-c", code, "config", "--keys"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=60)
        assert done.returncode == 2 and done.stderr.startswith("motet: The output cannot be printed: No space left")
        assert len(done.stderr.splitlines()) == 1
    done = subprocess.run(
        ["bash", "-c", f"{shlex.join(command)} | true; exit ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert done.returncode in (0, 1) and done.stderr == ""


def test_numbers_are_written_when_the_table_cannot_be_printed(tmp_path, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", Full())
        with pytest.raises(OutputError, match="cannot be printed"):
            show_numbers("a table", {"a": 1}, tmp_path / "n.json")
    assert json.loads((tmp_path / "n.json").read_text()) == {"a": 1}


def test_existing_files_are_replaced_when_that_is_asked(tiny_checkpoint, capsys, tmp_path):
    out, numbers = tmp_path / "grid.jpg", tmp_path / "numbers.json"
    for path in (out, numbers):
        path.write_text("mine")
    assert motet_command(capsys, "sample", tiny_checkpoint, "x", "--n", 1, "--out", out, "--overwrite").code == 0
    assert Image.open(io.BytesIO(out.read_bytes())).format == "JPEG"
    assert motet_command(capsys, "eval", tiny_checkpoint, *SMALL, "--json", numbers, "--overwrite").code == 0
    assert json.loads(numbers.read_text()).keys() >= {"draw", "answer"}


def test_a_picture_can_be_written_to_a_device():
    write_image("--out", Path("/dev/null"), Image.new("RGB", (8, 8)))
