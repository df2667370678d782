"""Recipes with stages: loading, invalid values, running, interrupting and resuming."""

import copy
import json
import shutil

import pytest
import yaml

from motet.config.plan import checkpoint_of
from motet.config.stages import parse_plan
from motet.core.errors import ConfigError
from motet.experiments.eval_cache import EvalCache
from motet.experiments.stages import _check_stages
from motet.experiments.tables import cell
from motet.training.setup import build_sft_tracks
from tests.experiments.test_tracks import TRACKS
from tests.runs import REWARDS, WORLD, mapping, metrics, motet_command

EVAL = {"suite": {"name": "shapes", "held_out_size": 2}, "size": 4, "samples_per_item": 2}


def plan_mapping(checkpoint):
    shared = mapping(checkpoint, eval=EVAL)
    shared["run"] |= {"steps": 2, "save_every": 1}
    return {
        "description": "a small tree",
        "shared": shared,
        "stages": {
            "taught": {"kind": "sft", "rewards": [], "data": {"targets": {"image": "target", "answer": "solution"}}},
            "unified": {"scenario": "generate_and_answer"},
            "draw": {"init_from": "unified", **TRACKS["draws"]} | {"prompts_per_step": None},
            "turns": {"init_from": "unified", "tracks": TRACKS, "run": {"steps_per_track": 1}},
            "merged": {"kind": "merge", "init_from": ["draw", "turns"], "base": "unified", "method": "norm"},
        },
        "table": {"all": "merged", "each": {"draw": "draw", "answer": "turns"}},
    }


@pytest.fixture
def content(tiny_checkpoint):
    made = plan_mapping(tiny_checkpoint)
    del made["stages"]["draw"]["prompts_per_step"]
    return made


def test_a_plan_is_loaded(content, tiny_checkpoint, tmp_path):
    plan = parse_plan(content, tmp_path, ["stages.draw.run.steps=7", "shared.optimizer.learning_rate=0.5"])
    names = [stage.name for stage in plan.stages]
    assert names == ["taught", "unified", "draw", "turns", "merged"]
    assert plan.stage("draw").recipe.run.steps == 7 and plan.stage("unified").recipe.run.steps == 2
    assert {stage.recipe.optimizer.learning_rate for stage in plan.stages} == {0.5}
    assert plan.stage("unified").recipe.policy.path == str(tiny_checkpoint)
    assert plan.stage("draw").recipe.policy.path == str(tmp_path / "unified" / "checkpoints" / "step_000002")
    assert checkpoint_of(plan.stage("draw"), tmp_path) == tmp_path / "draw" / "checkpoints" / "step_000007"
    assert plan.stage("merged").base == tmp_path / "unified" / "checkpoints" / "step_000002"
    assert list(plan.stage("turns").recipe.resolved_tracks()) == ["draws", "answers"]
    assert plan.table["each"] == {"draw": "draw", "answer": "turns"} and plan.table["all"]["answer"] == "merged"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["steps"], 3, "steps: the key is unknown (its value here is 3); did you mean 'stages'?"),
        (["stages"], {}, "stages: is empty"),
        (["stages"], [], "stages: [] does not fit; expected a mapping to keys of a recipe"),
        (["stages", "a/b"], {}, "'a/b' is used as a folder name"),
        (["stages", "draw", "kind"], "grpo", "stages.draw.kind: 'grpo' does not fit; expected one of rl, sft, merge"),
        (["stages", "draw", "init_from"], "merged", "is not an earlier stage. Fix: move 'merged' before 'draw'"),
        (["stages", "draw", "init_from"], "unifed", "is not an earlier stage. Fix: write 'unified'"),
        (
            ["stages", "merged", "init_from"],
            ["draw"],
            "stages.merged.init_from: names 1 stages; a merge needs two or more",
        ),
        (
            ["stages", "merged"],
            {"kind": "merge", "init_from": ["draw", "turns", "unified"]},
            "stages.merged.method: is gaussian, which merges two stages, not 3",
        ),
        (
            ["stages", "merged", "method"],
            "mean",
            "stages.merged.method: 'mean' does not fit; expected one of gaussian, average, norm",
        ),
        (["stages", "merged", "method"], "average", "stages.merged.base: has no effect with method average"),
        (["stages", "draw", "method"], "average", "stages.draw.method: has no effect in a stage of kind rl"),
        (["stages", "draw", "algorithm"], {"betta": 1}, "stages.draw.algorithm.betta: the key is unknown"),
        (["table", "each", "draws"], "draw", "table.each.draws: the key is unknown; did you mean 'table.each.draw'?"),
        (["table", "each", "draw"], "drew", "table.each: 'drew' is not a stage"),
    ],
)
def test_invalid_values_are_named(content, tmp_path, path, value, message):
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ConfigError) as error:
        parse_plan(content, tmp_path)
    assert message in str(error.value)


def test_tracks_take_the_shared_data_where_they_name_none(content, tmp_path):
    content = copy.deepcopy(content)
    content["shared"]["data"] = {"source": "shapes", "options": {"hard_fraction": 0.25}}
    del content["stages"]["turns"]["tracks"]["draws"]["data"]
    tracks = parse_plan(content, tmp_path).stage("turns").recipe.resolved_tracks()
    assert (
        tracks["draws"].data.options == {"hard_fraction": 0.25}
        and "hard_fraction" not in tracks["answers"].data.options
    )
    content["stages"]["turns"]["tracks"]["draws"] = 3
    with pytest.raises(ConfigError, match=r"stages\.turns\.tracks\.draws"):
        parse_plan(content, tmp_path)


def test_prompt_dropout_of_an_rl_stage_is_rejected_before_anything_runs(tiny_checkpoint, tmp_path):
    content = plan_mapping(tiny_checkpoint)
    content["stages"]["unified"]["sft"] = {"prompt_dropout": 0.1}
    with pytest.raises(ConfigError, match=r"stages\.unified\.sft: has no effect in a stage of kind rl"):
        parse_plan(content, tmp_path)


def test_errors_of_the_last_stage_are_found_before_the_first_runs(content, tmp_path, capsys):
    content["stages"]["late"] = {"scenario": "text_to_image", "data": {"columns": {"wish": "prompt"}}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    refused = motet_command(capsys, "train", tmp_path / "plan.yaml", "-o", tmp_path / "out")
    assert refused.code == 2 and "Stage 'late': " in refused.err and "no column 'prompt'" in refused.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["sft", "rl"])
def test_missing_splits_are_found_before_the_first_stage_runs(content, tmp_path, capsys, kind):
    late = {"kind": kind, "scenario": "text_to_image", "eval": {"suite": {"name": "rewards", "split": "validation"}}}
    late |= {"rewards": [{"name": f"{REWARDS}reddish"}], "data": {"source": "shapes", "options": dict(WORLD)}}
    if kind == "sft":
        late["data"]["targets"] = {"image": "target"}
    content["stages"]["late"] = late
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    refused = motet_command(capsys, "train", tmp_path / "plan.yaml", "-o", tmp_path / "out")
    assert (
        refused.code == 2
        and "Stage 'late': eval.suite=rewards evaluates on eval.suite.split='validation'" in refused.err
    )
    assert not (tmp_path / "out").exists()


def test_an_sft_stage_may_have_shared_rewards(content, tmp_path):
    """The stage uses them only for evaluation, if its suite is `rewards`."""
    del content["stages"]["taught"]["rewards"]
    assert content["shared"]["rewards"]
    for suite in ("shapes", "rewards"):
        content["shared"]["eval"] = EVAL | {"suite": suite}
        plan = parse_plan(content, tmp_path)
        _check_stages(plan, tmp_path / "out", [stage.name for stage in plan.stages])
        (track,) = build_sft_tracks(plan.stage("taught").recipe)
        assert track.targets == {"image": "target", "answer": "solution"}
        assert [reward.name for reward in track.rewards] == (["reddish", "spacious"] if suite == "rewards" else [])


@pytest.fixture(scope="module")
def finished(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    made = plan_mapping(tiny_checkpoint)
    del made["stages"]["draw"]["prompts_per_step"]
    (folder / "plan.yaml").write_text(yaml.safe_dump(made, sort_keys=False))
    from motet.config.stages import load_plan
    from motet.experiments.stages import run_plan

    run_plan(load_plan(folder / "plan.yaml", folder / "out"), folder / "out", "again", resume=False)
    return folder


def test_stages_run_end_to_end(finished):
    out = finished / "out"
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["stages"]) == ["taught", "unified", "draw", "turns", "merged"]
    results = summary["stages"]
    assert summary["starts"] == {"start": results["unified"]["before"]}
    for name in ("draw", "turns"):  # known results are not evaluated again
        assert results[name]["before"] == results["unified"]["after"] and not (out / name / "before.png").exists()
    assert results["merged"]["after"]["draw"].keys() == results["draw"]["after"]["draw"].keys()
    assert (out / "merged" / "merged" / "model.safetensors").is_file() and (out / "merged" / "after.png").is_file()
    assert cell(results["draw"]["after"], "held-out draw") == results["draw"]["after"]["held_out"]["draw"]["overall"]
    assert cell(results["draw"]["after"], "answer") == results["draw"]["after"]["answer"]["overall"]
    assert cell(None, "draw") is None


def test_other_evaluation_settings_are_evaluated_again(content, tmp_path):
    plan = parse_plan(
        content, tmp_path, ["stages.draw.eval.size=5", "stages.turns.tracks.draws.data.options.hard_fraction=0.5"]
    )
    eval_cache = EvalCache()
    eval_cache.add(plan.stage("unified"), tmp_path, {"before": {"a": 1}, "after": {"b": 2}})
    assert eval_cache.for_start(plan.stage("turns")) == {"b": 2}  # options of the training split do not matter
    assert eval_cache.for_start(plan.stage("draw")) is None
    slower = parse_plan(content, tmp_path, ["stages.turns.sampling.denoising.num_steps=20"])  # the suite uses it
    assert eval_cache.for_start(slower.stage("turns")) is None
    assert eval_cache.for_start(plan.stage("unified")) == {"a": 1}
    wider = parse_plan(content, tmp_path, ["stages.turns.tracks.draws.data.options.max_objects=2"])
    assert eval_cache.for_start(wider.stage("turns")) is None
    elsewhere = parse_plan(content, tmp_path / "other")
    assert eval_cache.for_start(elsewhere.stage("unified")) == {"a": 1}  # the same weights in another plan
    assert eval_cache.for_start(elsewhere.stage("turns")) is None


def test_eval_cache_distinguishes_scenarios(tiny_checkpoint, tmp_path):
    content = plan_mapping(tiny_checkpoint)
    draws = {**TRACKS["draws"]}
    del draws["prompts_per_step"]
    content["shared"]["eval"] = {"suite": "rewards", "size": 4, "samples_per_item": 2}
    content["stages"] = {"one": draws, "two": {"scenario": "answer", "rewards": TRACKS["answers"]["rewards"]},
                         "three": {**draws, "algorithm": {"advantage_assignment": "joint"}},
                         "four": {**draws, "sampling": {"image": {"temperature": 0.5}}}}  # fmt: skip
    del content["table"]
    plan, eval_cache = parse_plan(content, tmp_path), EvalCache()
    eval_cache.add(plan.stage("one"), tmp_path, {"before": {"a": 1}, "after": {"b": 2}})
    known = {stage.name: eval_cache.for_start(stage) for stage in plan.stages}
    assert known == {"one": {"a": 1}, "two": None, "three": {"a": 1}, "four": None}


def test_finished_stages_are_skipped(finished, capsys):
    out = finished / "out"
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    refused = motet_command(capsys, "train", finished / "plan.yaml", "-o", out)
    assert refused.code == 2 and "already in use" in refused.err and "--resume" in refused.err
    again = motet_command(capsys, "train", finished / "plan.yaml", "-o", out, "--resume")
    assert again.code == 0 and again.out.count("already finished") == 5 and "open-ended" in again.out
    assert stamps == {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    changed = motet_command(
        capsys, "train", finished / "plan.yaml", "stages.draw.optimizer.learning_rate=0.1", "-o", out, "--resume"
    )
    assert changed.code == 2 and "optimizer.learning_rate was 0.003 and is 0.1" in changed.err


def test_killed_stages_are_resumed(finished, capsys, tmp_path):
    """Missing parts of a stage are repeated with the same results."""
    shutil.copytree(finished / "out", tmp_path / "out")
    content = (finished / "plan.yaml").read_text()
    (tmp_path / "plan.yaml").write_text(content)
    out = tmp_path / "out"
    (out / "draw" / "summary.json").unlink()
    shutil.rmtree(out / "draw" / "checkpoints" / "step_000002")
    shutil.rmtree(out / "turns")
    shutil.rmtree(out / "merged" / "merged")
    (out / "merged" / "summary.json").unlink()
    answer = motet_command(capsys, "train", tmp_path / "plan.yaml", "-o", out, "--resume")
    assert answer.code == 0 and answer.out.count("already finished") == 2
    first, second = (json.loads((f / "summary.json").read_text())["stages"] for f in (finished / "out", out))
    for name in first:
        assert first[name]["after"] == second[name]["after"], name
    for name in ("draw", "turns"):
        assert metrics(finished / "out" / name) == metrics(out / name)


@pytest.mark.slow
def test_only_runs_stages_with_their_dependencies(finished, capsys, tmp_path):
    """Other stages are only listed if finished; a full run then skips the finished ones."""
    out, plan = tmp_path / "out", finished / "plan.yaml"
    shutil.copytree(finished / "out" / "taught", out / "taught")
    some = motet_command(capsys, "train", plan, "-o", out, "--resume", "--only", "draw")
    assert some.code == 0 and not (out / "turns").exists() and "each" in some.out
    assert "all" not in [word for line in some.out.splitlines() if "Warning" not in line for word in line.split()]
    told = json.loads((out / "summary.json").read_text())["stages"]
    whole = json.loads((finished / "out" / "summary.json").read_text())["stages"]
    assert {name: stage["after"] for name, stage in told.items()} == {
        name: whole[name]["after"] for name in ("taught", "unified", "draw")
    }
    unknown = motet_command(capsys, "train", plan, "-o", out, "--resume", "--only", "drew")
    assert unknown.code == 2 and "--only is 'drew'" in unknown.err and "did you mean 'draw'?" in unknown.err


def test_a_part_of_a_plan_contains_its_dependencies(content, tmp_path):
    aside = {"kind": "merge", "init_from": ["unified", "turns"], "base": "taught", "method": "norm"}
    content["stages"]["aside"] = aside
    plan = parse_plan(content, tmp_path)
    assert plan.needed(["turns"], tmp_path) == {"turns", "unified"}
    assert plan.needed(["aside"], tmp_path) == {"aside", "unified", "turns", "taught"}
    part = plan.part({"unified", "draw"})
    assert [stage.name for stage in part.stages] == ["unified", "draw"] and part.table == {"each": {"draw": "draw"}}


def resumed(capsys, folder, *overrides):
    return motet_command(capsys, "train", folder / "plan.yaml", *overrides, "-o", folder / "out", "--resume")


@pytest.fixture
def moved(finished, tmp_path):
    """The finished stages in another folder, with a copy of the starting checkpoint."""
    folder = shutil.copytree(finished, tmp_path / "moved")
    content = yaml.safe_load((folder / "plan.yaml").read_text())
    start = content["shared"]["policy"]["path"]
    content["shared"]["policy"]["path"] = str(shutil.copytree(start, folder / "start"))
    (folder / "plan.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


def test_a_plan_can_be_moved_with_its_weights(moved, capsys):
    assert resumed(capsys, moved).out.count("already finished") == 5


def test_a_merge_cannot_change_on_resume(moved, capsys):
    for change, told in (
        ("stages.merged.method=average", "stages.merged.base: has no effect with method average"),
        (
            "stages.merged={kind: merge, init_from: [draw, turns], method: average}",
            "method was 'norm' and is 'average'",
        ),
        ("stages.merged.init_from=[draw, unified]", "from unified was None and is 'weights "),
        ("stages.merged.base=draw", "base was 'weights "),
    ):
        refused = resumed(capsys, moved, change)
        assert refused.code == 2 and told in refused.err, (change, refused.err)


def test_changed_weights_at_the_same_path_are_detected(moved, capsys):
    """Another checkpoint at the same path, or a part of a merge trained again: dependents cannot be resumed."""
    part = moved / "out" / "draw" / "checkpoints" / "step_000002" / "model.safetensors"
    own = part.read_bytes()
    part.write_bytes(own[:-1] + bytes([own[-1] ^ 1]))
    refused = resumed(capsys, moved)
    assert refused.code == 2 and "Stage 'merged': " in refused.err and "from draw was 'weights " in refused.err
    part.write_bytes(own)
    start = moved / "start" / "model.safetensors"
    start.write_bytes(start.read_bytes()[:-1] + b"x")
    refused = resumed(capsys, moved)
    assert refused.code == 2 and "Stage 'taught': " in refused.err and "policy.path was 'weights " in refused.err


@pytest.mark.slow
def test_a_finished_stage_can_be_extended_not_shortened(moved, capsys):
    """Its dependents, which started from the shorter one, are rejected before anything runs."""
    for path in ("draw", "turns", "merged"):
        shutil.rmtree(moved / "out" / path)
    shrunk = resumed(capsys, moved, "stages.unified.run.steps=1")
    assert (
        shrunk.code == 2
        and "Stage 'unified': run.steps was 2 and is 1, but " in shrunk.err
        and "set run.steps to 2" in shrunk.err
    )
    only = ["stages={unified: {scenario: generate_and_answer, run: {steps: 3}}}", "table={}"]
    grown = resumed(capsys, moved, *only)
    assert grown.code == 0 and "already finished" not in grown.out, grown.err
    assert (moved / "out" / "unified" / "checkpoints" / "step_000003").is_dir()
    assert json.loads((moved / "out" / "unified" / "summary.json").read_text())["steps"] == 3


def test_dependents_of_an_extended_stage_are_rejected_before_anything_runs(moved, capsys):
    refused = resumed(capsys, moved, "stages.unified.run.steps=3")
    assert refused.code == 2 and "Stage 'draw': " in refused.err and "step_000002" in refused.err
    assert not (moved / "out" / "unified" / "checkpoints" / "step_000003").exists()


def test_starts_with_two_evaluation_settings_are_two_rows(tiny_checkpoint, tmp_path):
    from motet.experiments.stages import start_results

    content = plan_mapping(tiny_checkpoint)
    content["stages"]["draw"].pop("init_from")
    del content["stages"]["draw"]["prompts_per_step"]
    content["stages"]["draw"]["eval"] = {"suite": {"guidance_scale": 2.0}}
    plan = parse_plan(content, tmp_path)
    results = {stage.name: {"before": stage.name} for stage in plan.stages}
    found = start_results(plan, results)
    assert found["start of draw"] == "draw" and len(found) == 2 and "start" in found
