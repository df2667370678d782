"""`motet eval --suite A,B`: any registered suite, its options, and what is written."""

import json

import pytest
from PIL import Image
from pydantic import BaseModel, ConfigDict

from motet.config.schema import ShapesSuiteOptions
from motet.core.errors import ConfigError
from motet.core.registry import _Entry, registry
from motet.training.suites import Suite, SuiteResult, find_suite
from tests.runs import motet_command, write_recipe


class Sized(BaseModel):
    model_config = ConfigDict(extra="forbid")
    factor: float = 1.0
    guidance_scale: float | None = None


class Counting(Suite):
    """Notes how it is called; writes one file and returns one sample."""

    Settings = Sized
    default_samples = 3

    def __init__(self, task="all"):
        self.task, self.seen = task, []

    def for_task(self, task):
        if task != "one":
            raise ConfigError(f"there is no task {task!r}.", fix="write one.")
        return Counting(task)

    def __call__(self, policy, settings):
        settings.progress(1, 1)
        config = settings.recipe.eval
        self.seen.append((config, settings.recipe.sampling, settings.recipe.policy.path))
        if settings.folder is not None:
            (settings.folder / "made.txt").write_text(self.task)
        factor = config.suite.options.get("factor", 1.0)
        table = {"size": float(config.size), "samples": float(config.samples_per_item), "factor": factor}
        return SuiteResult(table, table, [(Image.new("RGB", (8, 8)), "a prompt", True)])


def plain(policy, settings, bonus=0):
    return {"score": 1.0 + bonus}


@pytest.fixture
def counting(monkeypatch):
    registry("suite").get("shapes")
    suite = Counting()
    for name, entry in (("counting", suite), ("plain", plain)):
        monkeypatch.setitem(registry("suite")._entries, name, _Entry(entry, "me"))
    return suite


def test_several_suites_with_their_options_and_outputs(tiny_checkpoint, capsys, tmp_path, counting):
    out, json_path = tmp_path / "out", tmp_path / "all.json"
    arguments = ["--suite", "counting,plain,counting:one", "--option", "counting.factor=2.5", "--option"]
    arguments += ["plain.bonus=4", "--output", out, "--json", json_path, "--size", 5]
    answer = motet_command(capsys, "eval", tiny_checkpoint, *arguments)
    assert answer.code == 0, answer.err
    tables = json.loads(json_path.read_text())
    assert tables["counting"] == {"size": 5, "samples": 3, "factor": 2.5}  # the suite's own number of samples
    assert tables["plain"] == {"score": 5} and tables["counting:one"]["factor"] == 1
    results = json.loads((out / "results.json").read_text())
    assert results["checkpoint"] == str(tiny_checkpoint)
    assert results["suites"]["counting"]["metrics"] == tables["counting"]
    assert results["suites"]["counting"]["eval"]["suite"] == {"name": "counting", "factor": 2.5}
    assert (out / "counting" / "made.txt").read_text() == "all"
    assert (out / "counting_one" / "made.txt").read_text() == "one"
    assert Image.open(out / "counting" / "samples.png").size[0] > 100
    text = (out / "tables.txt").read_text()
    assert "factor" in text and "score" in text and "factor" in answer.out and "\x1b" not in text


def test_a_single_suite_and_a_recipes_settings(tiny_checkpoint, capsys, tmp_path, counting):
    recipe = write_recipe(tmp_path / "recipe.yaml", tmp_path / "nowhere", sampling={"image": {"temperature": 0.5}})
    arguments = ["--suite", "counting", "--option", "factor=2", "--samples", 2, "--guidance-scale", 3]
    answer = motet_command(capsys, "eval", tiny_checkpoint, recipe, "eval.size=7", *arguments, "--json", tmp_path / "n")
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "n").read_text()) == {"size": 7, "samples": 2, "factor": 2}
    ((config, sampling, path),) = counting.seen
    assert config.suite.options == {"factor": 2, "guidance_scale": 3} and sampling.image.temperature == 0.5
    assert path == str(tiny_checkpoint)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "cuonting"], ["'cuonting'", "Did you mean 'counting'"]),
        (["--suite", "counting,"], ["names with commas"]),
        (["--suite", "none"], ["evaluates nothing"]),
        (["--suite", "rewards"], ["evaluates with a recipe's rewards", "RECIPE.yaml"]),
        (["--suite", "counting", "--option", "factor"], ["--option factor is not key=value"]),
        (["--suite", "counting", "--option", "facter=2"], ["eval.suite.facter", "factor"]),
        (["--suite", "counting,plain", "--option", "factor=2"], ["which suite", "SUITE.factor=2", "counting, plain"]),
        (["--suite", "counting", "--held-out-size", 4], ["--held-out-size is not an option of counting"]),
        (["--suite", "counting", "--world", "grid=2"], ["--world is not an option of counting"]),
        (["--suite", "counting:two"], ["there is no task 'two'"]),
        (["--suite", "shapes:two"], ["has no tasks"]),
        (["--output", "{full}"], ["exists and is not empty", "--overwrite"]),
        (["--output", "{full}/a"], ["is a file"]),
    ],
)
def test_errors_are_found_before_the_checkpoint_is_loaded(capsys, tmp_path, counting, arguments, words):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    arguments = [str(argument).replace("{full}", str(tmp_path / "full")) for argument in arguments]
    answer = motet_command(capsys, "eval", tmp_path / "no checkpoint", *arguments)
    assert answer.code == 2 and all(word in answer.err for word in words), answer.err
    assert counting.seen == []


def broken(policy, settings):
    raise ConfigError("the judge is down.", fix="start it.")


def test_an_error_in_one_suite_does_not_lose_the_results_before_it(
    tiny_checkpoint, capsys, tmp_path, counting, monkeypatch
):
    monkeypatch.setitem(registry("suite")._entries, "broken", _Entry(broken, "me"))
    arguments = ["--suite", "counting,broken,plain", "--output", tmp_path / "out", "--json", tmp_path / "n.json"]
    answer = motet_command(capsys, "eval", tiny_checkpoint, *arguments)
    assert answer.code == 2 and "the judge is down" in answer.err and "samples" in answer.out
    assert json.loads((tmp_path / "n.json").read_text()).keys() == {"counting"}
    assert json.loads((tmp_path / "out" / "results.json").read_text())["suites"].keys() == {"counting"}


def test_tasks_are_suites_of_recipes_too(counting):
    assert find_suite("counting:one").task == "one" and find_suite("counting") is counting  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "held_out", "says"),
    [((), 512, True), (("--size", 3), 3, True), (("--size", 600), 512, True), (("--world", "canvas=32"), 512, False),
     (("--size", 3, "--held-out-size", 5), 5, True), (("--size", 3, "--option", "held_out_size=7"), 7, True)],
)  # fmt: skip
def test_the_shapes_suite_says_which_world_and_has_no_more_held_out_items_than_others(
    options, held_out, says, tiny_checkpoint, capsys, monkeypatch
):
    seen = []

    def fake(policy, config, *_):
        seen.append(ShapesSuiteOptions(**config.suite.options).held_out_size)
        raise ConfigError("stopped.", fix="none.")

    monkeypatch.setattr("motet.evaluation.suites.evaluate_shapes", fake)
    answer = motet_command(capsys, "eval", tiny_checkpoint, "--suite", "shapes", *options)
    assert seen == [held_out] and ("the small world" in answer.out) == says
