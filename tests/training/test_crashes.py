"""What survives a power cut, a kill, a second process and a flipped bit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from motet.config import parse_recipe
from motet.core.atomic_files import append, write_atomic
from motet.core.errors import CheckpointError, RunFolderError
from motet.report.run_dir import RunFolder
from motet.training.checkpoint import Progress, restore, save_checkpoint
from motet.training.setup import setup_rl
from motet.weights.locate import checkpoints, find_damage, latest_checkpoint
from motet.weights.safetensors_io import atomic_dir
from tests.runs import mapping, metrics, motet_command, run_loop, write_recipe

SHORT = {"run": {"steps": 3, "prompts_per_step": 1, "save_every": 1}}


class Journal:
    """The order of what reaches the disk: ("sync" | "name" | "remove", path), names after a rename."""

    def __init__(self, monkeypatch) -> None:
        self.events: list[tuple[str, str]] = []
        fsync, replace, rmtree = os.fsync, os.replace, shutil.rmtree

        def note_sync(descriptor):
            fsync(descriptor)
            self.events.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))

        def note_replace(source, target):
            replace(source, target)
            self.events.append(("name", str(target)))

        def note_rmtree(path, *rest, **options):
            self.events.append(("remove", str(path)))
            rmtree(path, *rest, **options)

        monkeypatch.setattr(os, "fsync", note_sync)
        monkeypatch.setattr(os, "replace", note_replace)
        monkeypatch.setattr(shutil, "rmtree", note_rmtree)

    def place(self, kind: str, path: Path | str) -> int:
        """Where the event is. Raises ValueError when it never was."""
        return self.events.index((kind, str(path)))


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="tells a descriptor's path")


@pytest.fixture(scope="module")
def session(tiny_checkpoint):
    return setup_rl(parse_recipe(mapping(tiny_checkpoint)))


@needs_proc
def test_a_checkpoint_is_on_the_disk_before_it_has_its_name_and_before_an_older_one_goes(
    session, tmp_path, monkeypatch
):
    journal, folder = Journal(monkeypatch), tmp_path / "run" / "checkpoints"
    for step in (1, 2):
        save_checkpoint(folder, session.policy, session.optimizer, Progress(step, 0.0, {}), keep=1)
    second, partial = folder / "step_000002", folder / ".partial_step_000002"
    named = journal.place("name", second)
    files = [path for path in second.rglob("*") if path.is_file()]
    assert len(files) > 5
    for file in files:
        assert journal.place("sync", partial / file.relative_to(second)) < named, file.name
    assert journal.place("sync", partial) < named
    removed = journal.place("remove", folder / ".partial_step_000001_removed")
    assert ("sync", str(folder)) in journal.events[named:removed]
    assert ("sync", str(folder.parent)) in journal.events[named:removed]
    assert [path.name for path in folder.iterdir()] == ["step_000002"]


@needs_proc
def test_all_lasting_files_of_a_run_are_synced(tiny_checkpoint, tmp_path, monkeypatch):
    journal, out = Journal(monkeypatch), tmp_path / "out"
    recipe = parse_recipe(mapping(tiny_checkpoint, **SHORT))
    folder = RunFolder(out, resume=False)
    with folder.held():
        folder.create("description: none\n", {"policy.path": "weights 1"})
    for name in ("start.json", "recipe.yaml"):
        assert journal.place("sync", out / f"{name}.partial") < journal.place("name", out / name)
    assert journal.place("name", out / "start.json") < journal.place("name", out / "recipe.yaml")
    assert ("sync", str(out)) in journal.events[journal.place("name", out / "recipe.yaml") :]
    assert ("sync", str(tmp_path)) in journal.events  # which names the new folder
    run_loop(recipe, out)
    first = journal.place("name", out / "checkpoints" / "step_000001")
    assert journal.place("sync", out / "metrics.jsonl") < first


@needs_proc
def test_a_merged_or_converted_folder_is_synced(tmp_path, monkeypatch):
    journal = Journal(monkeypatch)
    with atomic_dir(tmp_path / "merged") as partial:
        (partial / "config.json").write_text("{}")
    named = journal.place("name", tmp_path / "merged")
    assert journal.place("sync", partial / "config.json") < journal.place("sync", partial) < named
    assert ("sync", str(tmp_path)) in journal.events[named:]


# --- checksums


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def test_a_flipped_bit_is_refused_by_name_and_the_checkpoint_before_is_named(tiny_checkpoint, tmp_path):
    recipe = mapping(tiny_checkpoint, **SHORT)
    run_loop(recipe, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    newest = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert newest is not None
    for name in ("learner.safetensors", "model.safetensors", "trainer_state.json"):
        content = (newest / name).read_bytes()
        flip(newest / name)
        with pytest.raises(CheckpointError, match=rf"step_000003'.*{name} is damaged.*resume from step_000002"):
            run_loop(recipe, tmp_path / "run")
        (newest / name).write_bytes(content)
    (newest / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        run_loop(recipe, tmp_path / "run")
    shutil.rmtree(newest)  # as the message says
    run_loop(recipe, tmp_path / "run")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    for path in checkpoints(tmp_path / "run" / "checkpoints"):
        flip(path / "learner.safetensors")
    with pytest.raises(CheckpointError, match="start a new run"):
        run_loop(recipe, tmp_path / "run")


def test_checksums_are_those_of_sha256sum(session, tmp_path):
    saved = save_checkpoint(tmp_path, session.policy, session.optimizer, Progress(1, 0.0, {}), keep=1)
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", "--quiet", "--strict", "SHA256SUMS"], cwd=saved, check=True)
    assert find_damage(saved) is None
    (saved / "SHA256SUMS").write_text("")
    assert find_damage(saved) == "SHA256SUMS is empty"
    (saved / "SHA256SUMS").unlink()  # a checkpoint of an earlier version
    assert find_damage(saved) is None
    assert restore(saved, session.policy, session.optimizer).step == 1


# --- one process at a time


HOLD = """
import sys
from pathlib import Path
from motet.report.run_dir import RunFolder
folder = RunFolder(Path(sys.argv[1]), resume=False)
folder.create("description: none")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_process(tmp_path):
    """A process that has a new run folder `run` in its hands."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_refused_and_told_who_is_there(other_process, tiny_checkpoint, tmp_path, capsys):
    recipe, out = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, **SHORT), tmp_path / "run"
    folder = RunFolder(out, resume=True)
    with pytest.raises(RunFolderError, match=rf"in use by another process: pid {other_process.pid} on "), folder.held():
        pass
    (out / "recipe.yaml").write_text(recipe.read_text())
    answer = motet_command(capsys, "train", recipe, "--output", out, "--resume")
    assert answer.code == 2 and f"pid {other_process.pid}" in answer.err and "Fix: wait for that process" in answer.err
    assert not (out / "metrics.jsonl").exists()
    other_process.kill()
    other_process.wait()
    assert motet_command(capsys, "train", recipe, "--output", out, "--resume").code == 0
    assert [line["step"] for line in metrics(out)] == [0, 1, 2]
    assert not (out / ".holder.json").exists()


def test_of_two_processes_that_begin_at_once_one_runs(tmp_path):
    one, two = (RunFolder(tmp_path / "run", resume=False) for _ in range(2))
    with one.held():
        one.create("description: one")
        with one.held():  # entered again inside
            pass
        with pytest.raises(RunFolderError, match="in use by another process"):
            two.create("description: two")
    with pytest.raises(RunFolderError, match="already in use"):
        two.create("description: two")
    assert (tmp_path / "run" / "recipe.yaml").read_text() == "description: one"


def test_a_run_that_is_refused_leaves_no_lock_in_an_empty_folder(tmp_path):
    with RunFolder(tmp_path, resume=False).held():
        pass
    assert list(tmp_path.iterdir()) == []


# --- a kill while a run begins


@pytest.mark.parametrize(
    "last", ["mkdir", ".lock", ".holder.json", "start.json.partial", "start.json", "recipe.yaml.partial"]
)
def test_a_run_killed_before_its_recipe_is_written_starts_again(tiny_checkpoint, tmp_path, capsys, last):
    order = [".lock", ".holder.json", "start.json", "recipe.yaml.partial"]
    recipe, out = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, **SHORT), tmp_path / "run"
    out.mkdir()
    for name in [] if last == "mkdir" else [*order[: order.index(last) if last in order else 2], last]:
        (out / name).write_text('{"poli')
    assert motet_command(capsys, "train", recipe, "run.steps=1", "--output", out, "--resume").code == 2
    assert motet_command(capsys, "train", recipe, "run.steps=1", "--output", out).code == 0
    assert "policy.path" in json.loads((out / "start.json").read_text())
    assert motet_command(capsys, "train", recipe, "run.steps=2", "--output", out, "--resume").code == 0
    assert not list(out.glob("*.partial"))


# --- files written whole


def test_a_file_is_whole_or_not_at_all(tmp_path, monkeypatch):
    write_atomic(tmp_path / "a", b"one")

    def fail(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "fsync", fail)
        write_atomic(tmp_path / "a", b"two")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"one"
    append(tmp_path / "a", b" two")
    assert (tmp_path / "a").read_bytes() == b"one two"
