"""Every command on a tiny checkpoint, run as from the command line."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from PIL import Image

from motet.config import load_recipe
from motet.report.progress import ProgressBar
from motet.weights.locate import resolve_checkpoint, weights_digest
from tests.runs import WORLD, mapping, motet_command, write_recipe

ROOT = Path(__file__).parent.parent.parent
SUITE = {"suite": {"name": "shapes", "held_out_size": 4}, "size": 6, "samples_per_item": 2}
CUT = ["--max-tokens", "8"]
WORLD_OPTIONS = [text for name, value in WORLD.items() for text in ("--world", f"{name}={value}")]


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=120)


def test_help_needs_no_torch():
    code = (
        "import sys, motet.cli.app; print([m for m in ('torch', 'transformers', 'numpy', 'PIL') if m in sys.modules])"
    )
    assert python("-c", code).stdout.strip() == "[]"
    done = python("-m", "motet", "--help")
    assert done.returncode == 0 and done.stderr == ""
    commands = (
        "train sft sweep eval sample ask merge convert curate bench estimate config data rewards reward serve doctor "
        "card push demo"
    )
    for command in commands.split():
        assert command in done.stdout


def test_version(capsys):
    answer = motet_command(capsys, "--version")
    assert answer.code == 0 and answer.out == f"motet {version('motet')}\n"


def test_make_install_prints_next_steps(tmp_path):
    """Nothing else is printed if everything is installed."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", ".venv/bin/python", ".venv/.core"):
        (tmp_path / name).write_text((ROOT / name).read_text() if name == "Makefile" else "")
    done = subprocess.run(["make", "install"], capture_output=True, text=True, cwd=tmp_path, timeout=30)
    assert done.returncode == 0, done.stderr
    for text in ("installed in .venv", "make demo", "source .venv/bin/activate", "motet --help"):
        assert text in done.stdout


def test_a_wrong_recipe_is_rejected_before_torch_is_imported(tmp_path):
    (tmp_path / "recipe.yaml").write_text("policy: {path: x}\nrun: {stepz: 3}\n")
    code = (
        "import sys, motet.cli\n"
        f"try: motet.cli.main(['train', {str(tmp_path / 'recipe.yaml')!r}, '--output', {str(tmp_path / 'out')!r}])\n"
        "finally: print('torch' in sys.modules)\n"
    )
    done = python("-c", code)
    assert done.returncode == 2 and done.stdout.strip() == "False" and "'run.steps'" in done.stderr


@pytest.fixture(scope="module")
def trained(tiny_checkpoint, tmp_path_factory):
    """The folder and the output of a run of `motet train` with evaluations."""
    folder = tmp_path_factory.mktemp("cli")
    recipe = write_recipe(folder / "recipe.yaml", tiny_checkpoint, eval=SUITE, run={"steps": 2})

    class Capture:
        """Replaces capsys, which cannot be used in a module fixture."""

        def __init__(self):
            self.text = ["", ""]

        def readouterr(self):
            return tuple(self.text)

    import contextlib
    import io

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        answer = motet_command(Capture(), "train", recipe, "--output", folder / "runs" / "one")
    assert answer.code == 0, err.getvalue()
    return folder / "runs" / "one", out.getvalue()


def test_train_evaluates_before_and_after(trained):
    folder, output = trained
    summary = json.loads((folder / "summary.json").read_text())
    assert summary.keys() == {"before", "after", "seconds", "steps", "images_per_second", "seed"}
    assert summary["steps"] == 2 and summary["seconds"] > 0 and summary["images_per_second"] > 0
    assert summary["before"] == json.loads((folder / "before.json").read_text())
    assert summary["before"].keys() == summary["after"].keys()
    assert all(Image.open(folder / f"{name}.png").width > 500 for name in ("before", "after"))
    assert load_recipe(folder / "recipe.yaml").run.steps == 2
    for text in ("evaluate before", "train 2/2", "reward", "Validation items", "Trained 2 steps", "Try next: motet"):
        assert text in output
    assert not list(folder.glob("*.partial"))


def test_an_interrupted_evaluation_stops_at_once(tiny_checkpoint, capsys, tmp_path, monkeypatch):
    """The printed command starts the run from the beginning."""
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, eval=SUITE, run={"steps": 1})
    calls = []

    def items(bar, name, done, total, seconds=None):
        calls.append(done)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(ProgressBar, "items", items)
        answer = motet_command(capsys, "train", recipe, "--output", tmp_path / "run")
    assert answer.code == 130 and len(calls) == 1 and "Stopped. Resume with: motet train" in answer.out
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        ".lock",
        "recipe.yaml",
        "reconstruction.png",
        "start.json",
        "versions.jsonl",
    ]
    resume = shlex.split(answer.out.rpartition("Resume with: ")[2].splitlines()[0])
    assert motet_command(capsys, *resume[1:]).code == 0
    assert (tmp_path / "run" / "before.json").is_file() and (tmp_path / "run" / "summary.json").is_file()


def test_a_finished_run_can_be_extended(trained, capsys, tmp_path):
    import shutil

    folder, _ = trained
    shutil.copytree(folder, tmp_path / "run")
    answer = motet_command(capsys, "train", folder / "recipe.yaml", "run.steps=3", "-o", tmp_path / "run", "--resume")
    assert answer.code == 0 and "train 3/3" in answer.out and "evaluate before" not in answer.out
    after = json.loads((tmp_path / "run" / "summary.json").read_text())
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # as if the process had been killed in its first steps
    answer = motet_command(capsys, "train", folder / "recipe.yaml", "run.steps=1", "-o", tmp_path / "run", "--resume")
    assert answer.code == 0 and "train 1/1" in answer.out and "evaluate before" not in answer.out
    assert after["steps"] == 3 and after["before"] == json.loads((folder / "before.json").read_text())


def test_a_recipe_can_start_from_a_run_folder(trained, capsys, tmp_path):
    """A resumed run detects that the newest checkpoint of the folder has changed."""
    folder = shutil.copytree(trained[0], tmp_path / "first")
    recipe = write_recipe(tmp_path / "recipe.yaml", folder, run={"steps": 1})
    assert motet_command(capsys, "train", recipe, "--output", tmp_path / "run").code == 0
    start = json.loads((tmp_path / "run" / "start.json").read_text())
    newest = folder / "checkpoints" / "step_000002"
    assert start["policy.path"] == weights_digest(newest) is not None
    resume = ["train", recipe, "run.steps=2", "--output", tmp_path / "run", "--resume"]
    shutil.copytree(tmp_path / "run" / "checkpoints" / "step_000001", folder / "checkpoints" / "step_000003")
    other = motet_command(capsys, *resume)
    assert other.code == 2 and "policy.path was 'weights" in other.err
    shutil.rmtree(folder / "checkpoints" / "step_000003")
    assert motet_command(capsys, *resume).code == 0


def test_sft(tiny_checkpoint, capsys, tmp_path):
    recipe = write_recipe(
        tmp_path / "recipe.yaml", tiny_checkpoint, rewards=None, algorithm=None, sampling={"text": {"max_tokens": 60}},
        data={"targets": {"image": "target", "answer": "solution"}}, eval=SUITE, run={"steps": 2},
    )  # fmt: skip
    answer = motet_command(capsys, "sft", recipe, "--output", tmp_path / "run")
    assert answer.code == 0 and "nll text" in answer.out and "Validation items" in answer.out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == 2 and summary["after"]["draw"]["overall"] >= 0


def test_sample_takes_a_run_or_a_checkpoint(trained, tiny_checkpoint, capsys, tmp_path):
    folder, _ = trained
    answer = motet_command(capsys, "sample", folder, "two red circles", "--n", 3, "--out", tmp_path / "a" / "grid.png")
    assert answer.code == 0 and answer.out.strip() == str(tmp_path / "a" / "grid.png")
    assert Image.open(tmp_path / "a" / "grid.png").format == "PNG"
    plain = ["sample", tiny_checkpoint, "a red circle", "--n", "2", "--seed", "5", "--out"]
    for name, more in (("b", []), ("c", []), ("d", ["--guidance-scale", "3"]), ("e", ["--temperature", "0"])):
        assert motet_command(capsys, *plain, tmp_path / f"{name}.png", *more).code == 0
    grids = {name: (tmp_path / f"{name}.png").read_bytes() for name in "bcde"}
    assert grids["b"] == grids["c"] and len(set(grids.values())) == 3


def test_ask(tiny_checkpoint, capsys, tmp_path):
    Image.new("RGBA", (40, 30), "red").save(tmp_path / "red.png")
    answer = motet_command(capsys, "ask", tiny_checkpoint, tmp_path / "red.png", "what is it?", "--max-tokens", 4)
    assert answer.code == 0 and answer.out.endswith("[cut off at 4 tokens]\n")
    missing = motet_command(capsys, "ask", tiny_checkpoint, tmp_path / "blue.png", "what is it?")
    assert missing.code == 2 and "blue.png' cannot be read" in missing.err


def test_eval(trained, capsys, tmp_path):
    folder, _ = trained
    small = ["--size", "6", "--held-out-size", "4", "--samples-per-item", "2"]
    plain = tmp_path / "plain"  # a checkpoint alone, which no recipe tells the world of
    shutil.copytree(resolve_checkpoint(folder), plain)
    after = json.loads((folder / "summary.json").read_text())["after"]
    for checkpoint, options in ((folder, ()), (resolve_checkpoint(folder), ()), (plain, (*WORLD_OPTIONS, *CUT))):
        numbers = tmp_path / "new" / f"{Path(checkpoint).name}.json"
        answer = motet_command(capsys, "eval", checkpoint, *small, *options, "--json", numbers)
        assert answer.code == 0 and "image: overall" in answer.out
        # The same items, seed and weights as at the end of training: the same numbers.
        assert json.loads(numbers.read_text()) == after
    wrong = motet_command(capsys, "eval", folder, *small, "--world", "canvaz=16")
    assert wrong.code == 2 and "did you mean 'canvas'" in wrong.err
    other = motet_command(capsys, "eval", plain, *small)
    assert other.code == 2 and "16 pixels wide" in other.err and "--world" in other.err
    assert motet_command(capsys, "eval", folder, "--suite", "geneval").code == 2
    assert motet_command(capsys, "eval", folder, "--suite", "none").code == 2


@pytest.mark.parametrize(
    ("options", "given", "expected"),
    [({"world": "large"}, (), "large"), ({}, (), "small"), ({"world": "large"}, ("--world", "small"), "small"),
     (None, (), "small")],
)  # fmt: skip
def test_studio_scores_in_the_world_of_the_run(options, given, expected, capsys, monkeypatch, tmp_path):
    served = []
    monkeypatch.setattr("motet.studio.server.serve_studio", lambda *_, **settings: served.append(settings["world"]))
    if options is not None:
        write_recipe(tmp_path / "recipe.yaml", tmp_path / "policy", data={"options": options})
    answer = motet_command(capsys, "studio", tmp_path / "checkpoints" / "step_000002", *given)
    assert answer.code == 0 and served == [expected]


def test_config(tiny_checkpoint, capsys, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint)
    shown = motet_command(capsys, "config", recipe, "algorithm.beta=0.5")
    (tmp_path / "shown.yaml").write_text(shown.out)
    assert shown.code == 0 and load_recipe(tmp_path / "shown.yaml").algorithm.beta == 0.5
    keys = motet_command(capsys, "config", "--keys")
    assert keys.code == 0 and "num_generations" in keys.out
    assert motet_command(capsys, "config").code == 2


def test_doctor(capsys):
    answer = motet_command(capsys, "doctor")
    assert answer.code == 0
    for text in ("python ", "torch ", "transformers ", "gpu ", "peft ", "tiny model", "replayed log-probs agree"):
        assert text in answer.out


def test_bench_rollout(tiny_checkpoint, capsys, tmp_path):
    """The checkpoint would end every text at its first token; `generate` must run to the full length."""
    short = shutil.copytree(tiny_checkpoint, tmp_path / "short")
    config = json.loads((short / "generation_config.json").read_text())
    (short / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": list(range(320))}))
    answer = motet_command(
        capsys, "bench", "rollout", short, "--batch", 2, "--repeats", 1, "--json", tmp_path / "b.json"
    )
    assert answer.code == 0, answer.err
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert [row["task"] for row in rows] == ["image", "image", "text"] and all(row["ratio"] > 0 for row in rows)
    assert "image, guided 5" in answer.out and "generate" in answer.out
    static = motet_command(capsys, "bench", "rollout", short, "--batch", 3, "--repeats", 1, "--engine", "static")
    assert static.code == 0, static.err  # the same tokens as transformers' too
    nowhere = motet_command(capsys, "bench", "rollout", tmp_path / "nowhere")
    assert nowhere.code == 2 and "nowhere" in nowhere.err and len(nowhere.err.splitlines()) == 1


def test_usage_errors_are_status_2(capsys):
    for arguments in (["trian"], ["train"], ["sample", "x", "y", "--n", "0"], ["bench", "rollouts"]):
        answer = motet_command(capsys, *arguments)
        assert answer.code == 2 and "Usage" in answer.err, (arguments, answer.err)


def test_a_recipe_of_the_repository_resolves(capsys):
    recipes = [ROOT / "recipes" / f"{name}.yaml" for name in ("shapes_demo", "shapes_corl", "shapes_sweep")]
    assert all(motet_command(capsys, "config", path).code == 0 for path in recipes)
    assert mapping(Path("x"), rewards=None).get("rewards") is None
