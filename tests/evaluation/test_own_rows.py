"""Rows of one's own measured with one's own rewards: outside a run, before and after SFT, and while a run trains."""

import json

import datasets
import pytest
import yaml
from rich.table import Table

from motet.config import load_recipe, parse_recipe
from motet.core.errors import ConfigError
from motet.experiments.single_run import run_sft, run_training
from motet.report.run_dir import RunFolder
from motet.training.setup import setup_rl, setup_sft
from tests.runs import mapping, metrics, motet_command

COLOURS = ("red", "green", "blue", "yellow", "black", "white")
EVAL = {"suite": "rewards", "size": 4, "samples_per_item": 2}


def length(completions, answer):
    """How long the completion is, and one more where the gold answer is red: the rows can be told apart."""
    return [len(chat[0]["content"]) + 100.0 * (gold == "red") for chat, gold in zip(completions, answer, strict=True)]


def rows(count, first=0):
    return [{"question": f"what is {n}?", "answer": COLOURS[n % 6]} for n in range(first, first + count)]


def jsonl(path, content):
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return str(path)


def content(checkpoint, source, **changes):
    reward = {"name": f"{__file__}:length"}
    data = {"source": source, "options": {}, "targets": {"answer": "answer"}}
    return mapping(checkpoint, scenario="answer", rewards=[reward], data=data, **changes)


@pytest.fixture
def files(tmp_path):
    return jsonl(tmp_path / "train.jsonl", rows(8)), jsonl(tmp_path / "test.jsonl", rows(3, first=20))


def recipe_file(tmp_path, checkpoint, source, **changes):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content(checkpoint, source, **changes)))
    return tmp_path / "recipe.yaml"


# --- motet eval CHECKPOINT RECIPE


def test_a_checkpoint_is_evaluated_with_a_recipes_rewards(tiny_checkpoint, capsys, tmp_path, files):
    """The recipe's own checkpoint and training rows are not even there."""
    recipe = recipe_file(tmp_path, "nowhere", str(tmp_path / "gone.jsonl"))
    numbers = tmp_path / "n.json"
    options = ["--data", files[1], "--samples-per-item", 2, "--json", numbers]
    answer = motet_command(capsys, "eval", tiny_checkpoint, recipe, *options)
    assert answer.code == 0, answer.err
    assert "test.jsonl" in answer.out.replace("\n", "") and "length" in answer.out
    table = json.loads(numbers.read_text())["answer"]["length"]
    assert table["rows"] == 3 and [value >= 100 for value in table["by_row"]] == [n % 6 == 0 for n in (20, 21, 22)]
    again = motet_command(capsys, "eval", tiny_checkpoint, recipe, "run.seed=3", *options, "--overwrite")
    assert again.code == 0 and json.loads(numbers.read_text())["answer"]["length"] == table  # eval.seed alone counts


def test_a_split_of_saved_data(tiny_checkpoint, capsys, tmp_path):
    splits = {"train": datasets.Dataset.from_list(rows(8)), "dev": datasets.Dataset.from_list(rows(5, first=20))}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    recipe = recipe_file(tmp_path, tiny_checkpoint, str(tmp_path / "saved"))
    numbers = tmp_path / "n.json"
    answer = motet_command(capsys, "eval", tiny_checkpoint, recipe, "--split", "dev", "--json", numbers)
    assert answer.code == 0 and json.loads(numbers.read_text())["answer"]["length"]["rows"] == 5
    missing = motet_command(capsys, "eval", tiny_checkpoint, recipe)
    assert missing.code == 2 and "eval.suite.split='test'" in missing.err and "dev" in missing.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["has no splits", "eval.suite.data"]),
        (["--suite", "shapes", "--data", "x"], ["--data belongs to the suite rewards", "leave out --suite"]),
        (["--world", "canvas=64"], ["--world belongs to a suite"]),
        (["--output", "x"], ["--output belongs to a suite"]),
        (["--stage", "x"], ["--stage is 'x'", "leave it out"]),
        (["rewards=[]", "--data", "{test}"], ["names no rewards", "add rewards"]),
        (["--data", "{test}", "--split", "dev"], ["--split dev", "test.jsonl has no splits", "leave out --split"]),
    ],
)
def test_invalid_evaluation_options_are_rejected(tiny_checkpoint, capsys, tmp_path, files, arguments, words):
    recipe = recipe_file(tmp_path, tiny_checkpoint, files[0])
    arguments = [argument.replace("{test}", files[1]) for argument in arguments]
    answer = motet_command(capsys, "eval", tiny_checkpoint, recipe, *arguments)
    assert answer.code == 2 and all(word in answer.err for word in words), answer.err


@pytest.mark.parametrize("option", ["--data", "--split", "--stage"])
def test_row_options_need_a_recipe(tiny_checkpoint, capsys, option):
    answer = motet_command(capsys, "eval", tiny_checkpoint, option, "x")
    assert answer.code == 2 and f"{option} needs a recipe" in answer.err


def test_a_recipe_with_stages_needs_a_stage(tiny_checkpoint, capsys, tmp_path, files):
    plan = a_plan(tmp_path, tiny_checkpoint, files)
    unnamed = motet_command(capsys, "eval", tiny_checkpoint, plan)
    assert unnamed.code == 2 and "stages supervised, reinforced" in unnamed.err and "--stage supervised" in unnamed.err
    wrong = motet_command(capsys, "eval", tiny_checkpoint, plan, "--stage", "reinforce")
    assert wrong.code == 2 and "did you mean 'reinforced'" in wrong.err
    assert motet_command(capsys, "eval", tiny_checkpoint, plan, "--stage", "reinforced", "eval.size=1").code == 0


# --- eval.suite.data of a run


def test_a_file_for_evaluation_is_used_completely(tiny_checkpoint, tmp_path, files):
    recipe = parse_recipe(
        content(tiny_checkpoint, files[0], eval={**EVAL, "suite": {"name": "rewards", "data": files[1]}})
    )
    run_training(recipe, RunFolder(tmp_path / "run", resume=False), "")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    for name in ("before", "after"):
        table = summary[name]["answer"]["length"]
        assert [value >= 100 for value in table["by_row"]] == [n % 6 == 0 for n in (20, 21, 22)]
    assert load_recipe(tmp_path / "run" / "recipe.yaml").eval == recipe.eval


def test_evaluation_rows_are_checked_once(tiny_checkpoint, tmp_path, files, monkeypatch):
    checked = []
    monkeypatch.setattr("motet.data.rows.check_rows", lambda rows: checked.append(rows.source.name))
    recipe = parse_recipe(
        content(tiny_checkpoint, files[0], eval={**EVAL, "suite": {"name": "rewards", "data": files[1]}, "every": 1})
    )
    run_training(recipe, RunFolder(tmp_path / "run", resume=False), "")
    assert checked == ["train.jsonl", "test.jsonl"]


@pytest.mark.parametrize("prepared", [setup_rl, setup_sft])
def test_training_rows_are_not_used_for_evaluation(tiny_checkpoint, tmp_path, files, prepared, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data in (files[0], "train.jsonl"):
        with pytest.raises(ConfigError, match=r"rows that training sees.*another file"):
            prepared(
                parse_recipe(
                    content(tiny_checkpoint, files[0], eval={**EVAL, "suite": {"name": "rewards", "data": data}})
                )
            )
    with pytest.raises(ConfigError, match="rows that training sees"):
        own = EVAL | {"suite": {"name": "rewards", "split": "train"}}
        targets = {"image": "target", "answer": "solution"}
        prepared(parse_recipe(mapping(tiny_checkpoint, eval=own, data={"targets": targets})))


def test_a_second_file_without_the_suite_has_no_effect(tiny_checkpoint):
    with pytest.raises(
        ConfigError, match=r"eval\.suite\.data: the key is unknown.*'shapes' expects held_out_size, guidance_scale"
    ):
        parse_recipe(mapping(tiny_checkpoint, eval={"suite": {"name": "shapes", "data": "x.jsonl"}}))


# --- supervised training


def test_sft_can_be_evaluated_with_rewards(tiny_checkpoint, capsys, tmp_path, files):
    settings = {**EVAL, "suite": {"name": "rewards", "data": files[1]}, "every": 2}
    recipe = recipe_file(tmp_path, tiny_checkpoint, files[0], eval=settings, algorithm=None)
    answer = motet_command(capsys, "sft", recipe, "--output", tmp_path / "run")
    assert answer.code == 0 and "before" in answer.out and "change" in answer.out, answer.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["before"] != summary["after"]
    lines = metrics(tmp_path / "run")
    assert [("eval/length" in line, "eval/length_greedy" in line) for line in lines] == 2 * [(False,) * 2, (True,) * 2]
    assert lines[-1]["eval/length"] == pytest.approx(summary["after"]["answer"]["length"]["mean"], abs=1e-3)
    measured = motet_command(capsys, "eval", tmp_path / "run", recipe, "--json", tmp_path / "n.json")
    assert measured.code == 0 and json.loads((tmp_path / "n.json").read_text()) == summary["after"]


def test_sft_rejects_rewards_without_the_rewards_suite(tiny_checkpoint, files):
    own = content(tiny_checkpoint, files[0])
    own["rewards"][0]["name"] = "exact_answer"
    own["data"]["columns"] = {"solution": "answer"}  # the reward's column is not there
    own["data"]["targets"] = {"answer": "solution"}
    assert setup_sft(parse_recipe(own)).tracks[0].rewards == []
    with pytest.raises(ConfigError, match="names no rewards"):
        nothing = content(tiny_checkpoint, files[0], eval={**EVAL, "suite": {"name": "rewards", "data": files[1]}})
        setup_sft(parse_recipe(nothing | {"rewards": []}))


def a_plan(tmp_path, checkpoint, files):
    shared = content(checkpoint, files[0], eval={**EVAL, "suite": {"name": "rewards", "data": files[1]}})
    shared["run"] = {"steps": 2, "prompts_per_step": 2}
    stages = {"supervised": {"kind": "sft"}, "reinforced": {"init_from": "supervised"}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"shared": shared, "stages": stages}, sort_keys=False))
    return tmp_path / "plan.yaml"


def test_stages_share_rewards_with_an_sft_stage(tiny_checkpoint, capsys, tmp_path, files):
    answer = motet_command(capsys, "train", a_plan(tmp_path, tiny_checkpoint, files), "--output", tmp_path / "out")
    assert answer.code == 0, answer.err
    stages = json.loads((tmp_path / "out" / "summary.json").read_text())["stages"]
    assert stages["supervised"]["before"] != stages["supervised"]["after"] == stages["reinforced"]["before"]
    assert answer.out.count("evaluate before") == 1  # where one stage ends the next begins


# --- while reinforcement learning trains


@pytest.mark.parametrize("suite", ["rewards", "shapes"])
def test_periodic_evaluation_does_not_change_training(tiny_checkpoint, tmp_path, suite, monkeypatch):
    quick = {"draw": {"overall": 0.5}, "answer": {"overall": 0.5}}
    table = quick | {"greedy": quick, "items": {"test": 2, "held_out": 1}}
    table["by_item"] = {skill: {"overall": [0.25, 0.75]} for skill in quick}
    outcome = type("SuiteResult", (), {"table": table, "samples": []})()
    monkeypatch.setattr("motet.evaluation.suites.evaluate_shapes", lambda *_, **__: outcome)
    monkeypatch.setattr("motet.evaluation.suites.suite_table", lambda *_: Table())
    for name, every in (("plain", None), ("looked", 2)):
        recipe = parse_recipe(mapping(tiny_checkpoint, eval={**EVAL, "suite": suite, "every": every}))
        run_training(recipe, RunFolder(tmp_path / name, resume=False), "")
    plain, looked = metrics(tmp_path / "plain"), metrics(tmp_path / "looked")
    extra = [sorted(key for key in line if key.startswith("eval/")) for line in looked]
    assert extra[0] == extra[2] == [] and extra[1] == extra[3]
    names = {"rewards": "eval/reddish", "shapes": "eval/draw"}
    assert {names[suite], f"{names[suite]}_greedy", f"{names[suite]}/interval"} <= set(extra[1])
    assert [{k: v for k, v in line.items() if not k.startswith("eval/")} for line in looked] == plain


def test_periodic_evaluation_is_logged_per_track(tiny_checkpoint, tmp_path, files):
    own = content(tiny_checkpoint, files[0], eval={**EVAL, "suite": {"name": "rewards", "data": files[1]}, "every": 1})
    track = {key: own.pop(key) for key in ("scenario", "data", "rewards")} | {"prompts_per_step": 2}
    recipe = parse_recipe(own | {"tracks": {"one": track, "two": track}, "run": {"steps": 1}})
    run_training(recipe, RunFolder(tmp_path / "run", resume=False), "")
    (line,) = metrics(tmp_path / "run")
    assert {"eval/one/length", "eval/two/length_greedy"} <= line.keys()


def test_an_sft_run_on_shapes_is_evaluated_once(tiny_checkpoint, tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(
        "motet.experiments.single_run.evaluate_suite",
        lambda context, session, name, like=None: measured.append(name) or {},
    )
    monkeypatch.setattr("motet.experiments.single_run.print_table", lambda *_: None)
    data = {"targets": {"image": "target", "answer": "solution"}}
    recipe = mapping(tiny_checkpoint, rewards=None, algorithm=None, data=data, eval={"suite": "shapes"})
    recipe["run"]["steps"], recipe["sampling"]["text"]["max_tokens"] = 1, 60
    run_sft(parse_recipe(recipe), RunFolder(tmp_path / "run", resume=False), "")
    assert measured == ["after"]
