"""CoRL's data sets: rewards work with their columns, and the shipped recipes run on them."""

import math
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import torch
from safetensors.torch import load_file

from motet.config import DataConfig, RewardConfig
from motet.config.plan import Plan
from motet.config.stages import load_plan
from motet.data import open_rows
from motet.experiments.stages import run_plan
from motet.policies import load_policy
from motet.rewards import resolve, resolve_all
from motet.scenarios import resolve_scenario
from tests.corl_rows import COLUMNS, RIGHT, ROWS, TAGGED, WRONG, mcot, save_jsonl, save_parquet
from tests.rewards.judges import says
from tests.runs import SIZES, mapping, metrics, run_loop, save_tiny_janus

RECIPES = Path(__file__).parent.parent.parent / "recipes"
TEXT_REWARDS = {
    "qa_accuracy": [1, 1, 1, 1],
    "exact_answer": [1, 1, 1, 1],
    "multiple_choice": [1, None, None, 1],  # a row without options and letter is not multiple choice
    "open_ended": [0, 1, 1, 0],  # the letter is not equal to the option's text
}
CYCLE = {"name": "cycle", "acts": ["image"], "options": {"visual": "ssim", "side": 16, "max_tokens": 4}}


@pytest.fixture(scope="module")
def janus(tmp_path_factory):
    """A tiny Janus with enough context for the long questions of these data sets."""
    return save_tiny_janus(tmp_path_factory.mktemp("long") / "janus", sizes=replace(SIZES, max_positions=1024))


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def scores(rows, name, answers, **options):
    """The rewards of one answer per row."""
    reward = resolve(RewardConfig(name=name, options=options), {"answer": "text"}, rows.columns)
    columns = {c: [rows.row(i)[c] for i in range(len(rows))] for c in rows.columns}
    return reward(prompts=[], completions=says(*(TAGGED.format(answer) for answer in answers)), **columns)


@pytest.mark.parametrize("save", [save_parquet, save_jsonl])
def test_gold_options_and_type_come_from_the_columns(tmp_path, save):
    rows = open_rows(DataConfig(source=str(save(tmp_path)), columns=COLUMNS), ("prompt", "question", "image"))
    image = rows.row(1)["image"]
    assert image.getpixel((10, 10)) == (60, 195, 90) and image.getpixel((0, 0)) == (255, 255, 255)
    assert image.size == (25, 18)
    for name, values in TEXT_REWARDS.items():
        assert scores(rows, name, RIGHT) == values, name
        assert scores(rows, name, WRONG) == [None if value is None else 0 for value in values], name
    assert scores(rows, "format", RIGHT) == [1, 1, 1, 1]
    assert scores(rows, "format_tags", RIGHT) == [0.5] * 4
    assert scores(rows, "soft_answer", WRONG)[1] == 0.5 == scores(rows, "qa_accuracy", WRONG, open="soft")[1]


def test_letters_and_option_texts_are_accepted(tmp_path):
    """Only the correct letter scores; numbers are not letters."""
    rows = open_rows(DataConfig(source=str(save_parquet(tmp_path)), columns=COLUMNS), ("question",))
    assert scores(rows, "qa_accuracy", ["B", "B", "B", "B"]) == [1, 0, 0, 0]
    assert scores(rows, "qa_accuracy", ["C", "C", "4", "C"]) == [0, 0, 1, 1]
    assert scores(rows, "qa_accuracy", ["B or C", "juice orange", "four or five", "a bird"]) == [0, 0, 0, 0]


def test_class_labels_are_questions(tmp_path):
    columns = {"image": "real_image", "question": "cls_problem", "answer": "cls_solution"}
    rows = open_rows(DataConfig(source=str(save_parquet(tmp_path)), columns=columns), ("question", "image"))
    assert scores(rows, "object_class", ["bus", "a bus", "red bus", "car"], graded=True) == [1, 1, 0.9, 0]


@pytest.mark.parametrize(("kind", "name"), [("MC", "multiple_choice"), ("OE", "open_ended")])
def test_data_sets_without_types(tmp_path, kind, name):
    source = save_parquet(tmp_path, mcot(ROWS, kind))
    rows = open_rows(DataConfig(source=str(source), columns=COLUMNS), ("question", "image"))
    places = [n for n, row in enumerate(ROWS) if row["qa_type"] == kind]
    assert (
        scores(rows, name, [RIGHT[n] for n in places])
        == [1, 1]
        == scores(rows, "exact_answer", [RIGHT[n] for n in places])
    )
    assert scores(rows, name, [WRONG[n] for n in places]) == [0, 0]


def test_the_unified_stage_trains_on_both_files(janus, tmp_path):
    """Both question types in one step, with all four rewards; images may be inside the file or next to it."""
    changes = {
        "rewards": [
            CYCLE,
            {"name": "token_matching", "acts": ["image"]},
            {"name": "qa_accuracy", "acts": ["answer"], "weight": 0.8},
            {"name": "format", "acts": ["answer"], "weight": 0.8},
        ],
        "algorithm": {"advantage_assignment": "joint", "loss": {"name": "grpo", "epsilon": None}, "num_generations": 2},
        "sampling": {"image": {"guidance": "guided"}},
        "run": {"steps": 2, "prompts_per_step": 4},
    }
    ran = {}
    for save in (save_parquet, save_jsonl):
        own = tmp_path / save.__name__
        own.mkdir()
        data = {"source": str(save(own)), "columns": COLUMNS, "options": {}}
        run_loop(mapping(janus, data=data, **changes), own / "run")
        ran[save] = metrics(own / "run")
    assert ran[save_parquet] == ran[save_jsonl]
    for step in ran[save_parquet]:
        assert {f"rewards/{name}/mean" for name in ("cycle", "token_matching", "qa_accuracy", "format")} <= step.keys()
        assert all(math.isfinite(value) for value in step.values()) and step["grad_norm"] > 0


# --- the shipped plans


PLANS = ["janus_pro_1b_corl", "janus_pro_7b_lora", "janus_pro_1b_cold_sft"]


def shrunk(name: str, janus: Path, tmp_path: Path) -> Plan:
    """The recipe with a tiny Janus, synthetic files, tiny reward models and shorter lengths."""
    save_parquet(tmp_path)
    for kind, file in (("MC", "mcq"), ("OE", "vqa")):
        save_parquet(tmp_path, mcot(ROWS, kind), f"{file}.parquet")
    sources = {"x2x_rft_22k": "x2x", "x2x_rft_16k": "x2x", "mcot_r1_mcq_66k": "mcq", "mcot_r1_vqa_66k": "vqa"}
    plan = load_plan(
        RECIPES / f"{name}.yaml", tmp_path / "out", [f"shared.policy.path={janus}", "shared.sampling.text.max_tokens=6"]
    )
    if name.endswith("sft"):
        small = ["stages.cold_sft.tracks.mcq.data.size=2", "stages.cold_sft.tracks.vqa.data.size=2"]
        small += [f"stages.cold_sft.tracks.{track}.prompts_per_step=1" for track in ("x2x", "mcq", "vqa")]
    else:
        small = ["stages.unified.algorithm.num_generations=2"]
    overrides = [f"shared.policy.path={janus}", "shared.policy.device=cpu", "shared.sampling.text.max_tokens=6", *small]
    overrides += ["shared.algorithm.num_generations=2", "shared.run.steps=1", "shared.run.prompts_per_step=2"]
    for stage in plan.stages:
        if stage.kind == "merge":
            continue
        own = f"stages.{stage.name}"
        overrides += [f"{own}.run.steps=1"]
        overrides += [] if stage.recipe.tracks else [f"{own}.run.prompts_per_step=2"]
        for prefix, track in stage.recipe.resolved_tracks().items():
            where = f"{own}.tracks.{prefix}" if prefix else own
            file = tmp_path / f"{sources[track.data.source.removeprefix('mm-vl/')]}.parquet"
            overrides += [f"{where}.data.source={file}"]
            rewards = [CYCLE if r.name == "cycle" else r.model_dump(exclude_defaults=True) for r in track.rewards]
            rewards = [{**r, "acts": list(r["acts"])} if "acts" in r else r for r in rewards]
            overrides += [f"{where}.rewards={rewards}"] if rewards else []
    return load_plan(RECIPES / f"{name}.yaml", tmp_path / "out", overrides)


@pytest.mark.parametrize("name", PLANS)
def test_recipes_need_only_the_columns_of_the_data_sets(tmp_path, monkeypatch, janus, name):
    monkeypatch.setattr("motet.rewards.image.similarity.find_spec", lambda package: True)
    small = shrunk(name, janus, tmp_path)
    for stage in load_plan(RECIPES / f"{name}.yaml", tmp_path / "out").stages:
        own = small.stage(stage.name).recipe.resolved_tracks()
        for prefix, track in stage.recipe.resolved_tracks().items() if stage.kind != "merge" else ():
            scenario = resolve_scenario(track.scenario.name)
            rows = open_rows(own[prefix].data, scenario.columns)
            resolve_all(track.rewards, scenario.acts, rows.columns)
            assert track.data.columns == COLUMNS


@pytest.mark.parametrize("name", [PLANS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in PLANS[1:])])
def test_recipes_run_end_to_end(tmp_path, janus, name):
    if name == "janus_pro_7b_lora":
        pytest.importorskip("peft")
    plan = shrunk(name, janus, tmp_path)
    summary = run_plan(plan, tmp_path / "out", "again", resume=False)
    assert list(summary["stages"]) == [stage.name for stage in plan.stages]
    merged, start = load_policy(tmp_path / "out" / "merged" / "merged"), load_policy(janus)
    weights = load_file(janus / "model.safetensors")
    assert weights.keys() == load_file(tmp_path / "out" / "merged" / "merged" / "model.safetensors").keys()
    moved = [not torch.equal(a, b) for a, b in zip(merged.model.parameters(), start.model.parameters(), strict=True)]
    assert any(moved)
    # a second call finds everything finished
    assert run_plan(plan, tmp_path / "out", "again", resume=True) == summary
