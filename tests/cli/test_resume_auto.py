"""`--resume auto`: one command that starts a run, goes on with it, and does nothing once it is finished."""

import pytest
import yaml

from motet.core.errors import ConfigError, RunFolderError
from motet.experiments.stages import check_unused
from motet.report.resume_mode import resumes_run
from tests.experiments.test_stages import plan_mapping
from tests.runs import motet_command, write_recipe

SHORT = {"run": {"steps": 1, "prompts_per_step": 1}, "optimizer": {"schedule": "constant"}}


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_one_command_starts_resumes_and_ends(tiny_checkpoint, tmp_path, capsys):
    recipe, out = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, **SHORT), tmp_path / "run"
    started = motet_command(capsys, "train", "--resume", "auto", recipe, "-o", out)
    assert started.code == 0 and "Trained 1 step in" in started.out
    before = files(out)
    again = motet_command(capsys, "train", recipe, "-o", out, "--resume", "auto")
    assert again.code == 0 and again.out == f"The run in {str(out)!r} is already finished: 1 step.\n"
    assert files(out) == before
    longer = motet_command(capsys, "train", recipe, "-o", out, "--resume=auto", "run.steps=2")
    assert longer.code == 0 and "Trained 2 steps" in longer.out
    changed = motet_command(
        capsys, "train", recipe, "-o", out, "--resume", "auto", "optimizer.learning_rate=1", "run.steps=2"
    )
    assert changed.code == 2 and "optimizer.learning_rate was 0.003 and is 1.0" in changed.err
    plain = motet_command(capsys, "train", recipe, "-o", out, "--resume", "run.steps=3")  # the override is no mode
    assert plain.code == 0 and "Trained 3 steps" in plain.out
    wrong = motet_command(capsys, "train", recipe, "-o", out, "--resume=maybe")
    assert wrong.code == 2 and "'maybe' is not one of" in wrong.err


def test_a_folder_of_other_files_is_not_resumed(tiny_checkpoint, tmp_path, capsys):
    recipe, out = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, **SHORT), tmp_path / "photos"
    out.mkdir()
    (out / "cat.png").write_bytes(b"")
    answer = motet_command(capsys, "train", recipe, "-o", out, "--resume", "auto")
    assert answer.code == 2 and "is already in use. Fix: give another --output." in answer.err
    with pytest.raises(RunFolderError, match=r"already in use. Fix: choose another --output"):
        check_unused(out, "auto", [out / "unified"])
    (out / "unified").mkdir()
    check_unused(out, "auto", [out / "unified"])
    with pytest.raises(RunFolderError, match="add --resume to continue there"):
        check_unused(out, False, [out / "unified"])


def test_stages_take_it_too(tiny_checkpoint, tmp_path, capsys):
    content = plan_mapping(tiny_checkpoint)
    content["stages"] = {"unified": content["stages"]["unified"]}
    content["shared"]["eval"] = {"suite": "none"}
    del content["table"]
    plan, out = tmp_path / "plan.yaml", tmp_path / "out"
    plan.write_text(yaml.safe_dump(content))
    assert motet_command(capsys, "train", plan, "-o", out, "--resume", "auto").code == 0
    again = motet_command(capsys, "train", plan, "-o", out, "--resume", "auto")
    assert again.code == 0 and "already finished, skipped" in again.out


@pytest.mark.parametrize("command", [["train"], ["sft"], ["sweep"], ["bench", "scenarios"]])
def test_the_help_names_it(command, capsys):
    assert "--resume" in motet_command(capsys, *command, "--help").out


def test_python_takes_true_false_and_auto(tmp_path):
    assert [resumes_run(tmp_path, choice) for choice in (True, False, "auto")] == [True, False, False]
    (tmp_path / "recipe.yaml").touch()
    assert resumes_run(tmp_path, "auto")
    with pytest.raises(ConfigError, match=r"resume='yes' must be True, False or 'auto'"):
        resumes_run(tmp_path, "yes")
