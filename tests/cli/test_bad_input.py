"""User errors: one line on stderr with key, value and fix, exit status 2, and no files left behind."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from motet.core.errors import ConfigError, RunFolderError
from motet.core.registry import load_attribute
from motet.core.trajectory import Sampling
from motet.report.run_dir import RunFolder
from tests.runs import REWARDS, metrics, motet_command, write_recipe

NOISE = ("Loading weights", "[transformers]", "Writing model")  # silent outside pytest, where motet sets the verbosity


def lines_of(answer):
    text = answer.err.replace("\r", "\n")
    return [line for line in text.splitlines() if line.strip() and not line.startswith(NOISE)]


def assert_rejected(capsys, tmp_path, recipe, *overrides, command="train", words=(), lines=1):
    """Run a command and check that it fails with a one-line error."""
    out = tmp_path / "runs" / "new"
    answer = motet_command(capsys, command, recipe, *overrides, "--output", out)
    said = lines_of(answer)
    notes = [line for line in answer.out.splitlines() if not line.startswith(("On cpu: ", "Warning: ", "preflight: "))]
    assert answer.code == 2 and not "".join(notes).strip(), answer
    assert len(said) == lines and said[0].startswith("motet: ") and "Fix: " in answer.err, answer.err
    for word in words:
        assert word in answer.err, (word, answer.err)
    assert not (tmp_path / "runs").exists()


def rows(tmp_path, *entries):
    """A data file and two images, one of which is broken."""
    Image.new("RGB", (16, 16), "red").save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG and then nothing")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return {"source": str(path), "options": {}}


ANSWER = {"scenario": "answer", "rewards": [{"name": f"{REWARDS}spacious"}]}


# --- the recipe itself


@pytest.mark.parametrize(
    ("overrides", "words", "lines"),
    [
        (["run.stepz=3"], ["run.stepz", "did you mean 'run.steps'"], 1),
        (["algorithm.num_generations=eight"], ["algorithm.num_generations", "'eight'"], 1),
        (["optimizer.learning_rate=-1"], ["optimizer.learning_rate", "-1"], 1),
        (["scenario=generate_and_anser"], ["scenario", "'generate_and_anser'", "'generate_and_answer'"], 1),
        (["scenario=no_such_module:mine"], ["scenario", "no_such_module"], 1),
        (["rewards.0.name=reddisch"], ["rewards.name", "'reddisch'"], 1),
        (["rewards.0.acts=[imag]"], ["rewards.acts", "'imag'", "'image'"], 1),
        (["rewards.0.weight=0"], ["'image'", "no reward is assigned to it"], 1),
        (["policy.train=[languge_model]"], ["policy.train", "'language_model'"], 1),
        (["data.options.canvas=17"], ["canvas"], 1),
        (["algorithm.num_minibatches=3"], ["algorithm.num_minibatches", "run.prompts_per_step"], 1),
        (["run.stepz=3", "run.sead=1"], ["2 problems", "run.stepz", "run.sead"], 4),
    ],
)
def test_invalid_recipes_are_rejected(tiny_checkpoint, capsys, tmp_path, overrides, words, lines):
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint)
    answer_words = [*words]
    assert_rejected(capsys, tmp_path, recipe, *overrides, words=answer_words, lines=lines)


def test_a_missing_recipe(capsys, tmp_path):
    (tmp_path / "recipe.yaml").write_text("")
    assert_rejected(capsys, tmp_path, tmp_path / "recipee.yaml", words=["no recipe", "did you mean", "recipe.yaml"])
    assert_rejected(capsys, tmp_path, tmp_path / "recipe.yaml", words=["is empty"])


def test_train_and_sft_check_their_sections(tiny_checkpoint, capsys, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint)
    assert_rejected(capsys, tmp_path, recipe, command="sft", words=["data.targets names no column for the act 'image'"])
    bare = write_recipe(tmp_path / "bare.yaml", tiny_checkpoint, rewards=None)
    assert_rejected(capsys, tmp_path, bare, words=["names no rewards", "motet sft"])
    assert_rejected(
        capsys, tmp_path, recipe, "--only", "draw", words=["--only is 'draw'", "has no stages", "leave out --only"]
    )
    assert_rejected(
        capsys, tmp_path, bare, command="sft", words=["data.targets", "'image'", "data.targets.image=COLUMN"]
    )


# --- data


def test_a_missing_column(tiny_checkpoint, capsys, tmp_path):
    data = rows(tmp_path, {"image": "good.png", "qestion": "what?"})
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, **ANSWER, data=data)
    words = ["rows.jsonl has no column 'question'", "Did you mean 'qestion'", "data.columns.question="]
    assert_rejected(capsys, tmp_path, recipe, words=words)
    fine = ["data.columns.question=qestion", "run.steps=1"]
    assert motet_command(capsys, "train", recipe, *fine, "-o", tmp_path / "runs").code == 0


def test_missing_evaluation_rows(tiny_checkpoint, capsys, tmp_path):
    data = rows(tmp_path, {"image": "good.png", "question": "what?"})
    settings = {"data": data, "eval": {"suite": "rewards"}, "policy": {"path": "nowhere"}}
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, **ANSWER, **settings)
    # Found before the policy is loaded.
    assert_rejected(capsys, tmp_path, recipe, words=["eval.suite.split='test'", "has no splits", "set eval.suite.data"])


def test_an_unreadable_image(tiny_checkpoint, capsys, tmp_path):
    data = rows(tmp_path, {"image": "broken.png", "question": "what?"})
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, **ANSWER, data=data)
    assert_rejected(capsys, tmp_path, recipe, words=["Line 1 of rows.jsonl", "'broken.png'", "cannot be read"])


def test_a_prompt_that_is_too_long(tiny_checkpoint, capsys, tmp_path):
    data = rows(tmp_path, {"image": "good.png", "question": "why? " * 200})
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, **ANSWER, data=data)
    assert_rejected(capsys, tmp_path, recipe, words=["the model holds 256", "why? why?", "shorten the prompt"])


# --- rewards


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("too_few", ["'too_few' returned 3 values for 4 completions"]),
        ("broken", ["'broken' raised TypeError", "MOTET_TRACEBACK=1"]),
        ("undefined", ["'undefined' returned no finite number in this step", "nan"]),
    ],
)
def test_rewards_that_break_their_contract(tiny_checkpoint, capsys, tmp_path, name, words):
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, rewards=[{"name": REWARDS + name}])
    assert_rejected(capsys, tmp_path, recipe, words=words)


def test_an_existing_empty_folder_stays(tiny_checkpoint, capsys, tmp_path):
    (tmp_path / "mine").mkdir()
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, rewards=[{"name": f"{REWARDS}broken"}])
    assert motet_command(capsys, "train", recipe, "--output", tmp_path / "mine").code == 2
    assert list((tmp_path / "mine").iterdir()) == []


def test_traceback_on_request(tiny_checkpoint, capsys, tmp_path, monkeypatch):
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint)
    monkeypatch.setenv("MOTET_TRACEBACK", "1")
    with pytest.raises(ConfigError, match="stepz"):
        motet_command(capsys, "train", recipe, "run.stepz=3", "--output", tmp_path / "run")


@pytest.mark.parametrize("save_every", [1, 5])
def test_a_failure_during_training_keeps_checkpoints(tiny_checkpoint, capsys, tmp_path, save_every):
    rewards = [{"name": f"{REWARDS}breaks_later"}]
    load_attribute(rewards[0]["name"], key="").calls = 0
    run = {"steps": 4, "save_every": save_every, "log_samples_every": 5}  # the reward counts its calls
    recipe, out = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, rewards=rewards, run=run), tmp_path / "run"
    answer = motet_command(capsys, "train", recipe, "--output", out)
    (said,) = lines_of(answer)
    assert answer.code == 2 and "the scorer is gone" in said and "After 2 steps" in said
    assert "step_000002" in said and f"Then: motet train {recipe} --output {out} --resume" in said
    assert len(metrics(out)) == 2
    again = motet_command(capsys, "train", recipe, "--output", out, "--resume")
    assert (again.code, len(metrics(out))) == (0, 4)  # only its third call fails


# --- checkpoints


def test_unloadable_checkpoints(tiny_checkpoint, capsys, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint)
    assert_rejected(
        capsys, tmp_path, recipe, f"policy.path={tmp_path}/none", words=["no checkpoint at", "none", "check"]
    )
    (tmp_path / "empty").mkdir()
    assert_rejected(capsys, tmp_path, recipe, f"policy.path={tmp_path}/empty", words=["empty' holds no config.json"])
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text('{"model_type": "llama"}')
    assert_rejected(capsys, tmp_path, recipe, f"policy.path={tmp_path}/llama", words=["'llama' model", "Janus"])
    shutil.copytree(tiny_checkpoint, tmp_path / "truncated")
    weights = tmp_path / "truncated" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert_rejected(
        capsys,
        tmp_path,
        recipe,
        f"policy.path={tmp_path}/truncated",
        words=["truncated/model.safetensors' cannot be read"],
    )
    for command in (["sample", tmp_path / "none", "x"], ["eval", tmp_path / "none"], ["ask", tmp_path / "none"]):
        image = [tmp_path / "good.png", "what?"] if command[0] == "ask" else []
        Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
        answer = motet_command(capsys, *command, *image)
        assert answer.code == 2 and "no checkpoint at" in answer.err and len(lines_of(answer)) == 1


# --- folders


def test_unusable_output_folders(tiny_checkpoint, capsys, tmp_path):
    recipe, out = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint), tmp_path / "used"
    out.mkdir()
    (out / "thesis.txt").write_text("important")
    for arguments, words in (
        (["--output", out], "is already in use. Fix: give another --output."),
        (["--output", out / "thesis.txt"], "is already in use"),
        (["--output", out / "thesis.txt" / "run"], "cannot be used"),
        (["--output", out, "--resume"], "does not contain a run to resume"),
        (["--output", tmp_path / "absent", "--resume"], "does not contain a run to resume"),
    ):
        answer = motet_command(capsys, "train", recipe, *arguments)
        assert answer.code == 2 and words in answer.err and len(lines_of(answer)) == 1, answer
    assert [path.name for path in out.iterdir()] == ["thesis.txt"] and not (tmp_path / "absent").exists()


def test_a_read_only_output_folder(tmp_path, monkeypatch):
    def raise_error(*arguments, **settings):
        raise PermissionError(13, "Permission denied")

    folder = RunFolder(tmp_path / "run", resume=False)
    monkeypatch.setattr(Path, "mkdir", raise_error)
    with pytest.raises(RunFolderError, match=r"'.*run' cannot be used: Permission denied"):
        folder.create("")
    monkeypatch.setattr(Path, "iterdir", raise_error)
    with pytest.raises(RunFolderError, match=r"cannot be used: Permission denied"):
        RunFolder(tmp_path, resume=False)


def test_an_output_folder_in_use(tiny_checkpoint, capsys, tmp_path):
    recipe, out = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint), tmp_path / "run"
    (out).mkdir()
    (out / "recipe.yaml").write_text("")
    answer = motet_command(capsys, "train", recipe, "--output", out)
    assert answer.code == 2 and "add --resume to continue that run" in answer.err


def test_incompatible_recipes_are_not_resumed(tiny_checkpoint, capsys, tmp_path):
    """Only keys without effect on the updates may differ; others are named in the error."""
    recipe, out = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, run={"steps": 1}), tmp_path / "run"
    assert motet_command(capsys, "train", recipe, "--output", out).code == 0
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    changed = ["algorithm.beta=0.1", "rewards.1.weight=0.5"]
    answer = motet_command(capsys, "train", recipe, *changed, "--output", out, "--resume")
    (said,) = lines_of(answer)
    assert answer.code == 2 and "algorithm.beta was 0.0 and is 0.1" in said
    assert "rewards.1.weight was 1.0 and is 0.5" in said and f"resume with {out / 'recipe.yaml'}" in said
    assert kept == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    free = ["run.steps=2", "run.save_every=1", "optimizer.max_tokens_per_microbatch=64", "description=longer"]
    assert motet_command(capsys, "train", recipe, *free, "--output", out, "--resume").code == 0
    assert len(metrics(out)) == 2


def test_run_length_is_fixed_with_a_schedule(tiny_checkpoint, capsys, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, optimizer={"schedule": "cosine"}, run={"steps": 1})
    out = tmp_path / "run"
    assert motet_command(capsys, "train", recipe, "--output", out).code == 0
    answer = motet_command(capsys, "train", recipe, "run.steps=2", "--output", out, "--resume")
    assert answer.code == 2 and "run.steps was 1 and is 2" in answer.err
    assert "optimizer.schedule='cosine' takes the learning rate to 0" in answer.err
    assert f"set run.steps to 1, or start a new run from its weights: policy.path={out}" in answer.err


def test_a_finished_run_can_be_extended_not_shortened(tiny_checkpoint, capsys, tmp_path):
    recipe, out = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, run={"steps": 4}), tmp_path / "run"
    assert motet_command(capsys, "train", recipe, "-o", tmp_path / "whole").code == 0
    assert motet_command(capsys, "train", recipe, "run.steps=2", "-o", out).code == 0
    assert motet_command(capsys, "train", recipe, "-o", out, "--resume").code == 0
    assert metrics(out) == metrics(tmp_path / "whole") and len(metrics(out)) == 4
    assert json.loads((out / "summary.json").read_text())["steps"] == 4
    answer = motet_command(capsys, "train", recipe, "run.steps=3", "-o", out, "--resume")
    assert answer.code == 2 and "run.steps was 4 and is 3, but" in answer.err and "already has 4 steps" in answer.err
    assert "steps: 4" in (out / "recipe.yaml").read_text()


@pytest.mark.parametrize(("key", "value"), [("guidance", 2.0), ("guidance", "on"), ("sde_type", "flow")])
def test_unknown_sampling_option_lists_valid_names(key, value):
    # Bypasses the type checks that only tests have.
    given = SimpleNamespace(**{"guidance": "none", "sde_type": "flow_sde", key: value})
    with pytest.raises(ConfigError, match=re.escape(f"Sampling({key}={value!r}) is unknown")) as caught:
        Sampling.__post_init__(given)
    assert "use one of" in str(caught.value) and ("guidance_scale" in str(caught.value)) == (key == "guidance")
