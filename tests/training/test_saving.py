"""What is in memory when a run ends early is saved: errors, signals, clocks, full disks, outputs that went away."""

import errno
import io
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import motet.training.trainer
from motet.config import parse_recipe
from motet.core.errors import CheckpointError, RewardError, RunFolderError
from motet.report.run_dir import RunFolder
from motet.report.safe_streams import safe_output
from motet.training.checkpoint import Progress
from motet.training.run_loop import Run
from motet.training.setup import setup_rl
from motet.training.signals import Interrupt
from motet.weights.locate import checkpoints, latest_checkpoint
from tests.runs import RecordingCallback, mapping, metrics, motet_command, run_loop, write_recipe
from tests.training.test_trainer import assert_same_run

SHORT = {"run": {"steps": 4, "prompts_per_step": 1}}
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")


def newest(folder: Path) -> str | None:
    found = latest_checkpoint(folder / "checkpoints")
    return None if found is None else found.name


def failing(patch, owner: Any, name: str, call: int, error: BaseException, *, after: bool = False) -> None:
    """Make a function raise at its n-th call, before or after it did its work."""
    calls, original = [], getattr(owner, name)

    def fail(*arguments, **options):
        calls.append(1)
        if len(calls) == call and not after:
            raise error
        result = original(*arguments, **options)
        if len(calls) == call:
            raise error
        return result

    patch.setattr(owner, name, fail)


@pytest.fixture(scope="module")
def whole(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saving") / "whole"
    run_loop(mapping(tiny_checkpoint, **SHORT), folder)
    return folder


# --- errors


def test_an_error_in_a_step_saves_the_whole_step_before_it(whole, tiny_checkpoint, tmp_path, monkeypatch):
    recipe = mapping(tiny_checkpoint, **SHORT)
    with monkeypatch.context() as patch:
        failing(patch, motet.training.trainer, "score_groups", 3, RewardError("it raised.", fix="correct it."))
        with pytest.raises(RewardError, match="it raised"):
            run_loop(recipe, tmp_path / "run")
    assert newest(tmp_path / "run") == "step_000002"
    run_loop(recipe, tmp_path / "run")
    assert_same_run(whole, tmp_path / "run")


def test_the_error_tells_what_is_saved(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, **SHORT)
    failing(monkeypatch, motet.training.trainer, "score_groups", 3, RewardError("it raised.", fix="correct it."))
    answer = motet_command(capsys, "train", recipe, "-o", tmp_path / "run")
    assert answer.code == 2 and "After 2 steps; the newest checkpoint is" in answer.err and "step_000002" in answer.err
    assert "Fix: correct it. Then: motet train" in answer.err and "--resume" in answer.err


def test_weights_that_moved_halfway_are_not_saved(tiny_checkpoint, tmp_path, monkeypatch):
    recipe = mapping(tiny_checkpoint, **SHORT)
    with monkeypatch.context() as patch:
        failing(patch, torch.optim.AdamW, "step", 3, RuntimeError("out of memory"), after=True)
        with pytest.raises(RuntimeError, match="out of memory"):
            run_loop(recipe, tmp_path / "run")
    assert newest(tmp_path / "run") is None and len(metrics(tmp_path / "run")) == 2
    with monkeypatch.context() as patch:  # and what is saved already is not saved again
        patch.setattr("motet.training.run_loop.save_checkpoint", None)
        failing(patch, motet.training.trainer, "score_groups", 1, RewardError("it raised.", fix="correct it."))
        with pytest.raises(RewardError):
            run_loop(recipe, tmp_path / "run")


def test_a_second_interruption_does_not_wait_for_a_save(tiny_checkpoint, tmp_path, monkeypatch):
    failing(monkeypatch, motet.training.trainer, "score_groups", 3, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_loop(mapping(tiny_checkpoint, **SHORT), tmp_path / "run")
    assert newest(tmp_path / "run") is None


def test_a_checkpoint_that_cannot_be_written_is_tried_once(tiny_checkpoint, tmp_path, monkeypatch):
    calls = []

    def save(*_):
        calls.append(1)
        raise CheckpointError("the disk is full.", fix="free some space.")

    monkeypatch.setattr("motet.training.run_loop.save_checkpoint", save)
    with pytest.raises(CheckpointError, match="the disk is full"):
        run_loop(mapping(tiny_checkpoint, run={"steps": 1, "prompts_per_step": 1}), tmp_path / "run")
    assert len(calls) == 1


# --- clocks


@pytest.mark.parametrize(
    ("minutes", "saved"), [(1e-9, ["step_000001", "step_000002", "step_000003"]), (None, ["step_000003"])]
)
def test_steps_are_saved_by_the_clock(tiny_checkpoint, tmp_path, minutes, saved):
    changes = {"run": {"steps": 3, "prompts_per_step": 1, "save_minutes": minutes, "keep_checkpoints": 9}}
    run_loop(mapping(tiny_checkpoint, **changes), tmp_path / "run")
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == saved


def test_by_default_half_an_hour_is_the_most_that_is_lost(tiny_checkpoint, tmp_path):
    recipe = parse_recipe(mapping(tiny_checkpoint))
    assert recipe.run.save_minutes == 30
    session, folder = setup_rl(recipe), RunFolder(tmp_path / "run", resume=False)
    folder.create("")
    run = Run(session, folder, RecordingCallback(Interrupt()), Interrupt())
    run.progress = Progress(1, 0.0, session.data_state())
    assert not run._due(1)
    run._saved_at -= 30 * 60
    assert run._due(1)
    run._save()
    assert not run._due(1)


# --- signals


@pytest.fixture
def without_nohup():
    """SIGHUP with its usual effect, also on processes that the test starts, where the tests run under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("without_nohup")
@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGTERM"])
def test_a_lost_terminal_and_a_cluster_ask_for_a_save(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), number)
        assert interrupt.asked
        os.kill(os.getpid(), number)  # asks again, no more
    assert signal.getsignal(number) == before


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupt.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_notice_needs_no_terminal(monkeypatch):
    def gone(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", gone)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.asked


# --- outputs


@needs_full
def test_writing_to_a_full_or_closed_output_never_raises(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with io.TextIOWrapper(io.FileIO(writer, "w"), write_through=True) as pipe, open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", pipe)
        monkeypatch.setattr(sys, "stderr", full)
        with safe_output():
            print("to nobody", flush=True)
            print("x" * 100_000, file=sys.stderr, flush=True)
            full.write("in the buffer")
        assert sys.stdout is pipe and sys.stderr is full
    with pytest.raises(ValueError, match="closed"):
        pipe.write("")
    with safe_output():
        print("to a closed file")
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    with safe_output():
        print("Δ \ud800")
    ascii_only.seek(0)
    assert ascii_only.read() == "\\u0394 \\ud800\n"


@needs_full
@pytest.mark.usefixtures("without_nohup")
def test_a_run_whose_outputs_are_gone_trains_on_and_saves_when_its_terminal_hangs_up(tiny_checkpoint, tmp_path):
    changes = {"run": {"steps": 100_000, "prompts_per_step": 1, "log_samples_every": 100_000}}
    recipe, out = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, **changes), tmp_path / "run"
    command = [sys.executable, "-m", "motet", "train", str(recipe), "-o", str(out)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=full)
    try:
        assert process.stdout is not None
        process.stdout.close()
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            if (out / "metrics.jsonl").is_file() and len(metrics(out)) >= 3:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGHUP)
        code = process.wait(timeout=120)
    finally:
        process.kill()
    assert code == 130
    assert newest(out) == f"step_{len(metrics(out)):06d}"


PROBE = """
from motet.report.safe_streams import open_standard_streams
open_standard_streams()
print("to nobody")
with open("file", "w") as file:
    number = file.fileno()
raise SystemExit(0 if number > 2 else 1)
"""


def test_without_standard_streams_no_file_takes_their_numbers(tmp_path):
    """With `>&- 2>&-` the next files that are opened would, and what is written for people would end up in them."""
    command = ["sh", "-c", f'exec "{sys.executable}" -c "$0" <&- >&- 2>&-', PROBE]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    assert subprocess.run(command, cwd=tmp_path, env=environment, check=False).returncode == 0


# --- full disks


def full_at(monkeypatch, *names: str) -> None:
    """Files of these names cannot be written."""
    opened = Path.open

    def refuse(path, *rest, **options):
        mode = rest[0] if rest else options.get("mode", "r")
        if any(name in path.name for name in names) and mode[0] in "wa":
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, *rest, **options)

    monkeypatch.setattr(Path, "open", refuse)


def test_a_disk_too_full_for_samples_is_worth_a_warning(whole, tiny_checkpoint, tmp_path, monkeypatch):
    full_at(monkeypatch, ".png", "step_000002.jsonl")
    with pytest.warns(UserWarning, match=r"samples/step_000002' is not saved: .*No space left on device"):
        run_loop(mapping(tiny_checkpoint, run=SHORT["run"] | {"log_samples_every": 2}), tmp_path / "run")
    assert metrics(whole) == metrics(tmp_path / "run")


def test_a_disk_too_full_for_metrics_stops_the_run_and_loses_nothing(whole, tiny_checkpoint, tmp_path, monkeypatch):
    recipe = mapping(tiny_checkpoint, run=SHORT["run"] | {"save_every": 2})
    out = tmp_path / "run"

    class Filling(RecordingCallback):
        def on_step_end(self, step, metrics):
            if step == 3:
                full_at(monkeypatch, "metrics.jsonl")

    session, folder = setup_rl(parse_recipe(recipe)), RunFolder(out, resume=False)
    with folder.held(), monkeypatch.context():
        folder.create("")
        with pytest.warns(UserWarning, match="Step 4 could not be saved"), pytest.raises(RunFolderError) as error:
            motet.training.trainer.train(session, Run(session, folder, Filling(Interrupt()), Interrupt()))
    assert "metrics.jsonl' cannot be written: No space left on device. Fix: free some disk space there." in str(
        error.value
    )
    monkeypatch.undo()
    assert newest(out) == "step_000002" and len(metrics(out)) == 3
    run_loop(recipe, out)
    assert metrics(whole) == metrics(out)


def test_a_line_that_does_not_fit_leaves_no_half(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run", resume=False)
    folder.create("")
    folder.append_line("metrics.jsonl", {"step": 0})

    class HalfFull(io.FileIO):
        def write(self, content):
            super().write(bytes(content)[:3])
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode, **_: HalfFull(path, mode.replace("b", "")))
        with pytest.raises(RunFolderError, match="No space left"):
            folder.append_line("metrics.jsonl", {"step": 1})
    folder.append_line("metrics.jsonl", {"step": 1})
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 0}\n{"step": 1}\n'


def test_a_disk_too_full_for_the_closing_table_still_prints_it(tiny_checkpoint, tmp_path, capsys, monkeypatch):
    changes = {
        "run": {"steps": 1, "prompts_per_step": 1},
        "eval": {"suite": {"name": "shapes", "held_out_size": 2}, "size": 4, "samples_per_item": 2},
    }
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, **changes)
    full_at(monkeypatch, "summary.json", "after.png")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        answer = motet_command(capsys, "train", recipe, "-o", tmp_path / "run")
    assert any("after.png' is not saved: No space left on device" in str(one.message) for one in seen)
    assert answer.code == 2 and "summary.json' cannot be written: No space left on device" in answer.err
    assert "image: overall" in answer.out and "Then: motet train" in answer.err
