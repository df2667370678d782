"""Of several processes that are started on one output folder one runs; the others change nothing."""

import os
import sys
import time
from pathlib import Path

import pytest
import yaml

import motet.cli
from motet.report.run_dir import RunFolder
from motet.report.run_lock import held_output
from tests.runs import mapping, metrics, motet_command, write_recipe

SMALL = {"run": {"steps": 3, "prompts_per_step": 1, "save_every": 1, "threads": 1}}


def write_stages(folder: Path, checkpoint: Path) -> Path:
    shared = mapping(checkpoint, eval={"suite": "none"}, **SMALL)
    stages = {"first": {}, "second": {"init_from": "first"}}
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({"shared": shared, "stages": stages}))
    return path


def write_sweep(folder: Path, checkpoint: Path) -> Path:
    evaluated = {"suite": {"name": "shapes", "held_out_size": 2}, "size": 2, "samples_per_item": 2}
    shared = mapping(checkpoint, eval=evaluated, **SMALL)
    shared["run"]["steps"] = 1
    strategies = {name: {"stages": {"both": {}}, "result": "both"} for name in ("one", "two")}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"seeds": [0], "shared": shared, "strategies": strategies}, sort_keys=False))
    return path


def commands(case: str, folder: Path, checkpoint: Path) -> list[str]:
    if case == "sweep":
        return ["sweep", str(write_sweep(folder, checkpoint))]
    if case == "plan":
        return ["train", str(write_stages(folder, checkpoint))]
    return ["train", str(write_recipe(folder / "recipe.yaml", checkpoint, eval={"suite": "none"}, **SMALL))]


def start(arguments: list[str], log: Path) -> int:
    """The pid of a fork, which has torch already, that runs a command."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with log.open("w", buffering=1) as sys.stdout:
                sys.stderr = sys.stdout
                motet.cli.main(arguments)
                code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os._exit(code)
    return child


def weights(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("learner.safetensors")}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["run", "plan", "sweep"])
def test_of_three_processes_one_trains_as_if_alone(case, tiny_checkpoint, tmp_path):
    """Two start at the same moment, the third when a step is done."""
    command = [*commands(case, tmp_path, tiny_checkpoint), "--resume", "auto", "--output"]
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert os.waitpid(start([*command, str(alone)], tmp_path / "alone.log"), 0)[1] == 0
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    started = [start([*command, str(shared)], log) for log in logs[:2]]
    end = time.monotonic() + 300
    while not list(shared.rglob("metrics.jsonl")) and time.monotonic() < end:
        time.sleep(0.01)
    started.append(start([*command, str(shared)], logs[2]))
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in started]
    said = [log.read_text() for log in logs]
    assert set(codes) == {0, 2}, said
    for code, text in zip(codes, said, strict=True):  # one that comes after the end finds a finished run
        assert ("in use by another process" in text) == (code == 2), said
    assert weights(alone) == weights(shared) and weights(alone)
    for path in alone.rglob("metrics.jsonl"):
        assert metrics(path.parent) == metrics(shared / path.parent.relative_to(alone))


@pytest.mark.parametrize("case", ["plan", "sweep"])
def test_an_output_is_held_between_its_runs_too(case, tiny_checkpoint, tmp_path, capsys):
    command, out = commands(case, tmp_path, tiny_checkpoint), tmp_path / "out"
    with held_output(out):
        answer = motet_command(capsys, *command, "--output", out, "--resume", "auto")
        assert answer.code == 2 and f"in use by another process: pid {os.getpid()} on" in answer.err
        assert sorted(path.name for path in out.iterdir()) == [".holder.json", ".lock"]
    assert not out.exists()


def test_a_stage_of_its_own_is_held_by_one_process(tiny_checkpoint, tmp_path, capsys):
    out, plan = tmp_path / "out", write_stages(tmp_path, tiny_checkpoint)
    other = RunFolder(out / "first", resume=False)
    with held_output(out), other.held():
        other.create((tmp_path / "plan.yaml").read_text())
        (out / "first" / "recipe.yaml").unlink()
        answer = motet_command(capsys, "train", plan, "--output", out, "--only", "first", "--resume")
    assert answer.code == 2 and f"{str(out / 'first')!r} is in use by another process: pid" in answer.err
