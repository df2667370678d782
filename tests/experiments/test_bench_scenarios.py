"""The scenario benchmark: selecting stages, running seeds, resuming, tables."""

import json
from pathlib import Path

import pytest
import yaml

from motet.config.bench_scenarios import MAKERS, StageFilter, load_bench
from motet.config.plan import trajectories
from motet.config.stages import load_plan
from motet.core.errors import CheckpointError, ConfigError
from motet.data import open_rows
from motet.report.run_lock import held_output
from motet.rewards import resolve_all
from motet.scenarios import resolve_scenario
from motet.training.advantages import check_reward_assignment
from tests.experiments.test_before_after import EVAL
from tests.experiments.test_tracks import TRACKS
from tests.runs import mapping, motet_command

ROOT = Path(__file__).parent.parent.parent
SHIPPED = ROOT / "recipes" / "shapes_scenarios.yaml"
ALONE = {name: {k: v for k, v in track.items() if k != "prompts_per_step"} for name, track in TRACKS.items()}


@pytest.fixture
def bench(tiny_checkpoint, tmp_path):
    shared = mapping(tiny_checkpoint, eval=EVAL, run={"steps": 2})
    stages = {"drawn": ALONE["draws"], "joint": {**ALONE["draws"], "algorithm": {"advantage_assignment": "joint"}},
              "answered": {**ALONE["answers"], "policy": {"path": "elsewhere/other"}}}  # fmt: skip
    path = tmp_path / "bench.yaml"
    content = {"shared": shared, "stages": stages, "compare": {"assignment": ["drawn", "joint"]}}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def names(plans):
    return {seed: [stage.name for stage in plan.stages] for seed, plan in plans.items()}


def test_stages_are_selected_by_scenario_name_and_policy(bench, tmp_path):
    out = tmp_path / "out"
    both = load_bench(bench, out, StageFilter((3, 4), ("text_to_image",)))
    assert names(both) == {3: ["drawn", "joint"], 4: ["drawn", "joint"]} and list(both[3].compare) == ["assignment"]
    assert {stage.recipe.run.seed for stage in both[4].stages} == {4}
    one = load_bench(bench, out, StageFilter((0,), ("drawn", "answer")))
    assert names(one) == {0: ["drawn", "answered"]} and not one[0].compare
    assert names(load_bench(bench, out, StageFilter(policies=("other",)))) == {0: ["answered"]}
    with_start = load_bench(bench, out, StageFilter(only=("joint",)), ["stages.joint.init_from=drawn", "compare={}"])
    assert names(with_start) == {0: ["drawn", "joint"]}  # with its dependencies


@pytest.mark.parametrize(("budget", "steps"), [(1, 1), (8, 2), (9, 3)])
def test_the_budget_counts_trajectories(bench, tmp_path, budget, steps):
    plan = load_bench(bench, tmp_path / "out", StageFilter(budget=budget))[0]  # 2 prompts, 2 generations: 4 per step
    assert {stage.recipe.run.steps for stage in plan.stages} == {steps}
    assert {sum(trajectories(stage.recipe).values()) for stage in plan.stages} == {4 * steps}


@pytest.mark.parametrize(
    ("choice", "overrides", "message"),
    [
        (StageFilter(only=("drwn",)), [], "--only is 'drwn', which the plan does not have. Fix: did you mean 'drawn'?"),
        (StageFilter(policies=("janus2",)), [], "--policy is 'janus2'"),
        (StageFilter(only=("drawn",), policies=("other",)), [], "no stage has such a scenario and such a policy"),
        (StageFilter(seeds=()), [], "No seed was given"),
        (StageFilter(), ["stages.joint.init_from=drawn", "compare={}"], None),
        (
            StageFilter(),
            ["stages.answered.eval.suite=none"],
            "stages.answered is a stage of kind rl with eval.suite none",
        ),
        (StageFilter(), ["stages.answered.eval.sizes=3"], "stages.answered.eval.sizes: the key is unknown"),
    ],
)
def test_invalid_values_are_named(bench, tmp_path, choice, overrides, message):
    if message is None:
        assert load_bench(bench, tmp_path / "out", choice, overrides)
        return
    with pytest.raises(ConfigError) as error:
        load_bench(bench, tmp_path / "out", choice, overrides)
    assert message in str(error.value)


def test_a_missing_cold_start_names_its_script(bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes = ["stages.answered.policy.path=checkpoints/shapes_unified"]
    with pytest.raises(CheckpointError, match=r"scripts/make_shapes_unified\.py, then recipes/shapes_unified_cold"):
        load_bench(bench, tmp_path / "out", StageFilter(), changes)
    assert load_bench(bench, tmp_path / "out", StageFilter(only=("drawn",)), changes)
    (tmp_path / "checkpoints" / "shapes_unified").mkdir(parents=True)
    assert load_bench(bench, tmp_path / "out", StageFilter(), changes)


def test_scripts_of_cold_starts_exist():
    for checkpoint, makers in MAKERS.items():
        if (ROOT / checkpoint).exists():
            assert all((ROOT / maker).is_file() for maker in makers.split(", then "))
    assert (ROOT / "checkpoints" / "shapes_janus").exists()


@pytest.mark.slow
def test_seeds_are_run_and_combined(bench, tmp_path, capsys):
    out = tmp_path / "out"
    command = ("bench", "scenarios", "--plan", bench, "-o", out, "--only", "text_to_image", "--budget", 4)
    answer = motet_command(capsys, *command, "--seed", 5)
    assert answer.code == 0, answer.err
    assert "assignment: drawn \u2212 joint" in answer.out and "Means over" not in answer.out
    assert (out / "seed_5" / "drawn" / "before.png").is_file()
    assert not (out / "seed_5" / "joint" / "before.png").exists()  # the cached result is used
    refused = motet_command(capsys, *command, "--seed", 5)
    assert refused.code == 2 and "already in use" in refused.err
    more = motet_command(capsys, *command, "--seed", 5, "--seed", 6, "--resume")
    assert more.code == 0, more.err
    assert more.out.count("already finished") == 2 and "Means over 2 seeds" in more.out
    assert not (out / "seed_6" / "drawn" / "before.png").exists()
    found = json.loads((out / "scenarios.json").read_text())
    assert [(gain["stage"], gain["seed"]) for gain in found["rows"]] == [
        ("drawn", 5), ("joint", 5), ("drawn", 6), ("joint", 6)
    ]  # fmt: skip
    assert {gain["trajectories"] for gain in found["rows"]} == {4}
    assert len({gain["before"] for gain in found["rows"]}) == 1 and len(found["compared"]) == 2
    text = (out / "scenarios.md").read_text()
    assert "| drawn | 5 | factorized |" in text and "| drawn | 6 | factorized |" in text and "Means over 2" in text


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_an_interrupted_benchmark_prints_its_resume_command(bench, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("motet.experiments.stages.run_training", interrupt)
    answer = motet_command(capsys, "bench", "scenarios", "--plan", bench, "-o", tmp_path / "out", "--only", "drawn",
                           "shared.optimizer.learning_rate=0.1")  # fmt: skip
    assert answer.code == 130
    words = answer.out.split("Resume with: ")[1].split()
    assert words[:4] == ["motet", "bench", "scenarios", "shared.optimizer.learning_rate=0.1"]
    assert words[4:] == [
        "--plan",
        str(bench),
        "--seed",
        "0",
        "--only",
        "drawn",
        "--output",
        str(tmp_path / "out"),
        "--resume",
    ]


def test_the_shipped_benchmark_compares_equal_budgets():
    """One budget, all six scenarios, equal rows for compared stages, and a reward for every act."""
    plan = load_plan(SHIPPED, Path("out"))
    assert {sum(trajectories(stage.recipe).values()) for stage in plan.stages} == {60 * 16 * 8}
    assert {stage.recipe.scenario.name for stage in plan.stages if "unified" in stage.name} >= {
        "answer", "text_to_image", "think_then_generate", "edit_cycle", "reflect", "regenerate", "caption_cycle"
    }  # fmt: skip
    assert plan.stage("unified_reasoning").recipe.data.options["task"] == "reasoning"
    assert {"unified_text_to_image", "janus_text_to_image"} <= {stage.name for stage in plan.stages}
    assert [stage.name for stage in plan.compare["the critique"]] == ["unified_reflect", "unified_regenerate"]
    both = plan.compare["advantage assignment of reflection"]
    assert {stage.recipe.algorithm.advantage_assignment for stage in both} == {
        "joint",
        "factorized",
    }
    for stage in plan.stages:
        recipe = stage.recipe
        scenario = resolve_scenario(recipe.scenario.name).with_options(recipe.scenario.options)
        rewards = resolve_all(recipe.rewards, scenario.acts, open_rows(recipe.data, scenario.columns).columns)
        check_reward_assignment(scenario, rewards)
        if recipe.scenario.name in ("reflect", "regenerate"):  # evaluated by the revision, not by the draft
            assert rewards[0].name == "shapes" and rewards[0].acts[-1] == "revision"
    one, other = plan.compare["advantage assignment of reflection"]
    assert one.recipe.rewards == other.recipe.rewards  # compare only the advantage assignment
    assert "improvement" not in [
        reward.name for reward in one.recipe.rewards if reward.weight
    ]  # it would cancel the draft's reward


def test_one_process_at_a_time_runs_a_seed(bench, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    command = ("bench", "scenarios", "--plan", bench, "-o", out, "--only", "drawn")
    with held_output(out / "seed_0"):
        refused = motet_command(capsys, *command)
        assert refused.code == 2 and "in use by another process" in refused.err and str(out / "seed_0") in refused.err
        monkeypatch.setattr("motet.experiments.stages.run_training", interrupt)
        assert motet_command(capsys, *command, "--seed", 1).code == 130  # another seed was started, and interrupted
