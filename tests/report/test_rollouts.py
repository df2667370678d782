"""The rollouts that a run saves for a person to read, the fixed prompts, and the report at a run's end."""

import json

import pytest
from PIL import Image

from motet.config import parse_recipe
from motet.core.task import Task
from motet.core.trajectory import ActWithAdvantage, Failure, Sampling, Scores
from motet.experiments.run_report import with_report
from motet.report.rollouts import best_and_worst, encode_image, save_best_and_worst, show_rollout
from motet.report.run_dir import RunFolder
from motet.report.terminal import Terminal
from motet.rewards.base import BoundReward
from motet.scenarios import GenerateImage, GenerateText, scenario, user
from motet.shapes.world import ShapesRows
from motet.testing import FakePolicy
from motet.training.fixed_prompts import first_prompts, score, show
from motet.training.rollout import rollout
from motet.training.setup import build_rl_tracks
from motet.training.signals import Stopped
from tests.runs import mapping, metrics, motet_command


@scenario("draft_and_critique", acts={"draft": "image", "critique": "text"}, columns=("prompt",))
def draft_and_critique(task):
    draft = yield GenerateImage(task.prompt, name="draft")
    context = user(task["prompt"]) + draft.to_conversation() + user("What is wrong?")  # equal, not the same object
    yield GenerateText(context, name="critique", trained=False)


@pytest.fixture
def groups():
    samplings = {"text": Sampling(), "image": Sampling()}
    tasks = [Task(n, {"prompt": f"cat {n}"}) for n in range(5)]
    return rollout(FakePolicy(), draft_and_critique, tasks, 3, samplings=samplings, seed=0, step=0)


def test_acts_stand_in_order_between_what_was_said_to_the_policy(groups):
    shown = show_rollout(groups[2].trajectories[1])
    assert (shown.entry["row"], shown.entry["generation"], len(shown.images)) == (2, 1, 1)
    draft, critique = groups[2].trajectories[1].acts
    assert shown.entry["turns"] == [
        {"by": "user", "text": "cat 2"},
        {"by": "policy", "act": "draft", "kind": "image", "trained": True, "image": 0},
        {"by": "user", "text": "What is wrong?"},
        {"by": "policy", "act": "critique", "kind": "text", "trained": False, "text": critique.text, "finished": True},
    ]
    assert shown.images[0].tobytes() == draft.image.tobytes()


def test_the_best_and_the_worst_of_a_step_have_reward_parts_and_advantages(groups, tmp_path):
    folder = RunFolder(tmp_path / "run", resume=False)
    folder.create("")
    rewards = [
        BoundReward(name, weight, (), lambda completions: [], {}, None) for name, weight in (("a", 2.0), ("b", 1.0))
    ]
    scores = [
        Scores({"a": (0.1 * n, 0.5, 0.9), "b": (None, 0.0, 9.0)}, {2: Failure("reward", "dropped")}) for n in range(5)
    ]
    advantages = [ActWithAdvantage(group.trajectories[1].acts[0], 1.5) for group in groups]
    shown = [
        one
        for group, score in zip(groups, scores, strict=True)
        for one in best_and_worst(group, score, rewards, advantages)
    ]
    save_best_and_worst(folder, 20, shown, "mine")
    saved = json.loads((tmp_path / "run" / "rollouts" / "step_000020_mine.json").read_text())
    assert [one["reward"] for one in saved["best"]] == [1.0, 1.0, 1.0] and [one["row"] for one in saved["best"]] == [
        0,
        1,
        2,
    ]
    assert [(one["row"], one["generation"], one["reward"]) for one in saved["worst"]] == [
        (0, 0, 0.0),
        (1, 0, 0.2),
        (2, 0, 0.4),
    ]
    assert saved["worst"][1]["rewards"] == {"a": 0.1, "b": None} and saved["worst"][1]["weights"] == {
        "a": 2.0,
        "b": 1.0,
    }
    assert [turn.get("advantage") for turn in saved["best"][0]["turns"]] == [None, 1.5, None, None]
    name = saved["best"][0]["turns"][1]["image"]
    with Image.open(tmp_path / "run" / "rollouts" / name) as image:
        assert image.convert("RGB").tobytes() == groups[0].trajectories[1].acts[0].image.convert("RGB").tobytes()


def test_large_images_are_saved_small():
    noise = Image.effect_noise((1024, 512), 90).convert("RGB")
    assert len(encode_image(noise)) < 40_000


def test_a_full_disk_is_a_warning(groups, tmp_path):
    folder = RunFolder(tmp_path / "run", resume=False)
    folder.create("")
    (tmp_path / "run" / "rollouts").write_text("in the way")
    with pytest.warns(UserWarning, match="step_000001' is not saved"):
        save_best_and_worst(folder, 1, [])


@pytest.fixture(scope="module")
def trained(tiny_checkpoint, tmp_path_factory):
    """Runs of three steps: one that records every second step, and one that records nothing."""
    from motet.experiments.single_run import run_training

    runs = []
    for every in (2, 1000):
        recipe = parse_recipe(mapping(tiny_checkpoint, run={"steps": 3, "log_samples_every": every}))
        runs.append(tmp_path_factory.mktemp("runs") / "run")
        run_training(recipe, RunFolder(runs[-1], resume=False), "", preflight=False)
    return runs


def test_fixed_prompts_are_rolled_out_before_between_and_after_the_steps(trained):
    recorded, plain = trained
    files = sorted(path.name for path in (recorded / "fixed_prompts").glob("*.json"))
    assert files == ["step_000000.json", "step_000002.json", "step_000003.json"]
    steps = [json.loads((recorded / "fixed_prompts" / file).read_text())["prompts"] for file in files]
    assert [[one["row"] for one in step] for step in steps] == [list(range(8))] * 3
    for one in (one for step in steps for one in step):
        parts = [one["weights"][name] * value for name, value in one["rewards"].items()]
        assert len(parts) == 2 and one["reward"] == pytest.approx(sum(parts), abs=1e-3)
    about = [json.loads((recorded / "fixed_prompts" / file).read_text())["rows"] for file in files]
    assert about == [{"source": "the shapes world (test)", "in_training": False}] * 3
    said = [[[turn.get("text") for turn in one["turns"] if turn["by"] == "user"] for one in step] for step in steps]
    assert said[0] == said[1] == said[2]
    assert not (plain / "fixed_prompts").exists() and not (plain / "rollouts").exists()
    assert [path.name for path in (recorded / "rollouts").glob("*.json")] == ["step_000002.json"]


@pytest.mark.parametrize(
    ("changes", "source", "in_training"),
    [
        ({"eval": {"suite": "rewards"}}, "the shapes world (test)", False),
        ({"eval": {"suite": {"name": "rewards", "split": "held_out"}}}, "the shapes world (held_out)", False),
        ({"data": {"split": "test"}}, "the shapes world (test)", True),
        ({"data": {"source": "FILE", "options": {}}}, "rows.jsonl", True),
        ({"data": {"source": "FILE", "options": {}}, "eval": {"suite": {"name": "rewards", "data": "shapes"}}},
         "the shapes world (test)", False),
    ],
)  # fmt: skip
def test_fixed_prompts_are_rows_of_the_evaluation_where_there_are_any(
    tiny_checkpoint, tmp_path, changes, source, in_training
):
    row = ShapesRows("train", 0, {}).row(0)
    (tmp_path / "rows.jsonl").write_text(json.dumps({key: row[key] for key in ("prompt", "question", "answer")}))
    if changes.get("data", {}).get("source") == "FILE":
        changes = {**changes, "data": {**changes["data"], "source": str(tmp_path / "rows.jsonl")}}
    content = mapping(tiny_checkpoint, **changes)
    content["data"] = {key: value for key, value in content["data"].items() if value}
    recipe = parse_recipe(content)
    (track,) = build_rl_tracks(recipe)
    prompts = first_prompts(recipe, track, 3)
    assert (prompts.source, prompts.in_training) == (source, in_training) and prompts.tasks[0].index == 0


def test_a_reward_that_fails_leaves_fixed_prompts_without_scores(groups, tmp_path):
    def broken(completions):
        raise ValueError("no")

    reward = BoundReward("broken", 1.0, ("draft",), broken, {}, None)
    with pytest.warns(UserWarning, match="fixed prompts were not scored after step 4: .*broken"):
        shown = show(groups, score(groups, [reward], 4, 10), [reward])
    assert len(shown) == 5 and all("reward" not in one.entry for one in shown)


def test_they_do_not_change_what_training_samples(trained):
    recorded, plain = trained
    assert metrics(recorded) == metrics(plain)


def test_every_run_leaves_a_report(trained, tiny_checkpoint, tmp_path, capsys):
    for run in trained:
        page = (run / "report.html").read_text()
        assert "finished" in page and "reddish" in page
    assert page.count("<article") == 0 < (trained[0] / "report.html").read_text().count("<article")
    answer = motet_command(capsys, "report", *trained, "--out", tmp_path / "both.html")
    assert answer.code == 0 and "both.html" in answer.out and (tmp_path / "both.html").is_file()
    assert motet_command(capsys, "report", *trained, "--out", tmp_path / "both.html").code == 2  # it exists
    assert motet_command(capsys, "report", tmp_path).code == 2


def test_a_run_that_fails_or_stops_leaves_a_report_with_its_error(tmp_path, capsys):
    folder = RunFolder(tmp_path / "run", resume=False)
    folder.create("")
    with pytest.raises(ValueError, match="early"), with_report(folder, Terminal(), is_main=True):
        raise ValueError("early: no step is done")
    assert not (tmp_path / "run" / "report.html").exists()
    folder.append_line("metrics.jsonl", {"step": 0, "reward": 0.5})
    with pytest.raises(ValueError, match="more"), with_report(folder, Terminal(), is_main=True):
        raise ValueError("no <b>more")
    page = (tmp_path / "run" / "report.html").read_text()
    assert ">failed<" in page and "no &lt;b&gt;more" in page and "report.html" in capsys.readouterr().out
    with pytest.raises(Stopped), with_report(folder, Terminal(), is_main=True):  # resumed
        raise Stopped("resume with ...")
    page = (tmp_path / "run" / "report.html").read_text()
    assert ">not finished<" in page and "more" not in page.partition("<main>")[0].partition("<body>")[2]
