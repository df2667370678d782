"""Output files of commands: checked first, not overwritten unless requested, and a full disk is one line."""

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from motet.cli.outputs import IMAGE_FORMATS, check_output, show_results, write_image, write_output, write_results
from motet.core.errors import OutputError
from tests.runs import WORLD, motet_command

ROOT = Path(__file__).parent.parent.parent
SMALL = ["--size", "6", "--held-out-size", "4", "--samples-per-item", "2", "--max-tokens", "8"]
SMALL += [text for name, value in WORLD.items() for text in ("--world", f"{name}={value}")]


def test_unwritable_outputs_are_rejected_before_any_work(tmp_path, capsys):
    """The checkpoint does not exist and is not looked up."""
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "there.json").write_text("mine")
    (tmp_path / "there.PNG").write_text("mine")
    cases = [
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
    for command, problem, fix in cases:
        answer = motet_command(capsys, *command)
        assert answer.code == 2 and len(answer.err.splitlines()) == 1 and "Fix: " in answer.err, answer.err
        assert problem in answer.err and fix in answer.err, answer.err
    assert (tmp_path / "there.json").read_text() == "mine" and (tmp_path / "there.PNG").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_read_only_folder_is_rejected(tmp_path):
    (tmp_path / "read_only").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="permission denied"):
        check_output("--json", tmp_path / "read_only" / "a.json", overwrite=False)


def test_image_format_follows_the_suffix(tmp_path):
    for suffix, kind in IMAGE_FORMATS.items():
        path = tmp_path / "new" / f"a{suffix.upper()}"
        write_image("--out", path, Image.new("RGB", (8, 8), "red"))
        assert Image.open(path).format == kind
    assert not list(tmp_path.rglob("*.partial"))


def test_devices_are_written_to(tmp_path):
    check_output("--json", Path("/dev/stdout"), overwrite=False)
    write_output("--json", Path("/dev/null"), b"x")
    assert not Path("/dev/null").is_file()
    os.mkfifo(tmp_path / "fifo")
    check_output("--json", tmp_path / "fifo", overwrite=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_is_one_line():
    with pytest.raises(OutputError, match=r"'/dev/full' cannot be written: No space left on device") as caught:
        write_results(Path("/dev/full"), {"a": float("nan")})
    assert "\n" not in str(caught.value)


def test_a_failed_write_keeps_the_existing_file(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("mine")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_output("--json", tmp_path / "a.json", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"] and (tmp_path / "a.json").read_text() == "mine"


def test_eval_prints_its_results_before_writing_them(tiny_checkpoint, capsys):
    """A full disk must not lose the results of a long evaluation."""
    answer = motet_command(capsys, "eval", tiny_checkpoint, *SMALL, "--json", "/dev/full")
    assert answer.code == 2 and "image: overall" in answer.out and "No space left" in answer.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.slow
def test_standard_output_that_is_full_or_closed(tiny_checkpoint, tmp_path):
    """A full device: one line and status 2. A closed pipe: status 1 without output."""
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


def test_results_are_written_even_if_the_table_cannot_be_printed(tmp_path, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", Full())
        with pytest.raises(OutputError, match="cannot be printed"):
            show_results("a table", {"a": 1}, tmp_path / "n.json")
    assert json.loads((tmp_path / "n.json").read_text()) == {"a": 1}


def test_overwrite_replaces_existing_files(tiny_checkpoint, capsys, tmp_path):
    out, results = tmp_path / "grid.jpg", tmp_path / "results.json"
    for path in (out, results):
        path.write_text("mine")
    assert motet_command(capsys, "sample", tiny_checkpoint, "x", "--n", 1, "--out", out, "--overwrite").code == 0
    assert Image.open(io.BytesIO(out.read_bytes())).format == "JPEG"
    assert motet_command(capsys, "eval", tiny_checkpoint, *SMALL, "--json", results, "--overwrite").code == 0
    assert json.loads(results.read_text()).keys() >= {"draw", "answer"}


def test_an_image_can_be_written_to_a_device():
    write_image("--out", Path("/dev/null"), Image.new("RGB", (8, 8)))
