"""Sweeps: loading, running, comparing by hand, extending."""

import json

import pytest
import yaml

from motet.config.sweep import load_sweep
from motet.core.errors import ConfigError
from motet.experiments.sweep import compare
from tests.experiments.test_stages import EVAL
from tests.experiments.test_tracks import TRACKS
from tests.runs import mapping, motet_command


@pytest.fixture
def study(tiny_checkpoint, tmp_path):
    shared = mapping(tiny_checkpoint, eval=EVAL)
    shared["run"] = {"steps": 2, "prompts_per_step": 2}
    shared["algorithm"]["num_generations"] = 3
    alone = {
        name: {key: value for key, value in track.items() if key != "prompts_per_step"}
        for name, track in TRACKS.items()
    }
    content = {
        "seeds": [3, 4],
        "budget": "free",
        "shared": shared,
        "strategies": {
            "unified": {"stages": {"both": {}}, "result": "both"},
            "separate": {
                "stages": {"draw": alone["draws"], "answer": {"from": "draw", **alone["answers"]}},
                "result": {"draw": "draw", "answer": "answer"},
            },
            "turns": {"stages": {"both": {"tracks": TRACKS, "run": {"steps_per_track": 1}}}, "result": "both"},
        },
    }  # fmt: skip
    path = tmp_path / "pilot.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_a_sweep_is_loaded(study, tmp_path):
    pilot = load_sweep(study, tmp_path / "out")
    assert (
        pilot.seeds == (3, 4) and list(pilot.plans) == ["unified", "separate", "turns"] and pilot.against == "unified"
    )
    for strategy in pilot.plans:
        for seed in (3, 4):
            assert {stage.recipe.run.seed for stage in pilot.plans[strategy][seed].stages} == {seed}
    start = pilot.plans["separate"][4].stage("answer").recipe.policy.path
    assert start == str(tmp_path / "out" / "separate" / "seed_4" / "draw" / "checkpoints" / "step_000002")
    assert pilot.budget("unified") == {"text_to_image": 2 * 2 * 3, "answer": 2 * 2 * 3}
    assert pilot.budget("separate") == {"text_to_image": 2 * 2 * 3, "answer": 2 * 2 * 3}
    assert pilot.budget("turns") == {"text_to_image": 1 * 3 * 3, "answer": 1 * 2 * 3}
    odd = load_sweep(study, tmp_path / "out", ["strategies.turns.stages.both.run.steps=5"])
    assert odd.budget("turns") == {"text_to_image": 3 * 3 * 3, "answer": 2 * 2 * 3}  # draw, answer, draw, answer, draw


def test_a_strategy_can_use_the_runs_of_another(study, tmp_path):
    content = yaml.safe_load(study.read_text())
    content["strategies"]["draws alone"] = {"stages": "separate", "result": {"draw": "draw"}}
    study.write_text(yaml.safe_dump(content, sort_keys=False))
    pilot, out = load_sweep(study, tmp_path / "out"), tmp_path / "out"
    assert pilot.folder(out, "draws alone", 3) == pilot.folder(out, "separate", 3) == out / "separate" / "seed_3"
    assert pilot.plans["draws alone"] is pilot.plans["separate"] and pilot.results["draws alone"] == {"draw": "draw"}
    assert pilot.budget("draws alone") == pilot.budget("separate")
    with pytest.raises(
        ConfigError, match=r"strategies.turns.stages is 'later', no strategy before it. Fix: write unif"
    ):
        load_sweep(study, out, ["strategies.turns.stages=later"])


def test_unequal_budgets_are_rejected_unless_allowed(study, tmp_path):
    with pytest.raises(ConfigError, match="a seed of 'unified' plays 12 answer, 12 text_to_image, of 'turns' 6 answer"):
        load_sweep(study, tmp_path / "out", ["budget=equal"])
    tracks = [f"strategies.turns.stages.both.tracks.{name}.prompts_per_step=2" for name in ("draws", "answers")]
    even = [*tracks, "strategies.turns.stages.both.run.steps=4", "budget=equal"]
    assert load_sweep(study, tmp_path / "out", even).budget("turns") == {"text_to_image": 12, "answer": 12}
    with pytest.raises(ConfigError, match="budget is 'fair'; expected equal or free"):
        load_sweep(study, tmp_path / "out", ["budget=fair"])


def test_a_sweep_without_matplotlib_does_not_start(study, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("motet.experiments.sweep.find_spec", lambda name: None)
    answer = motet_command(capsys, "pilot", study, "-o", tmp_path / "out")
    assert answer.code == 2 and "pip install 'motet[plots]'" in answer.err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=[1]", "the key 'seed' is unknown"),
        ("seeds=3", "seeds is 3; expected a list of whole numbers"),
        ("seeds=[]", "seeds is []"),
        ("strategies={a: {}}", "expected two or more strategies"),
        ("against=unfied", "against is 'unfied'"),
        ("strategies.unified.result=bth", "strategies.unified.result is 'bth'"),
        ("strategies.unified.extra=1", "needs the keys stages and result"),
        ("strategies.separate.stages.draw.run.stepz=1", "stages.draw: the recipe: run.stepz"),
    ],
)
def test_invalid_values_are_named(study, tmp_path, override, message):
    with pytest.raises(ConfigError) as error:
        load_sweep(study, tmp_path / "out", [override])
    assert message in str(error.value)


def test_a_sweep_is_run_and_extended(study, tmp_path, capsys):
    out = tmp_path / "out"
    answer = motet_command(capsys, "pilot", study, "seeds=[3]", "-o", out)
    assert answer.code == 0 and "over 1 seeds" in answer.out and (out / "pilot.png").is_file()
    answer = motet_command(capsys, "pilot", study, "-o", out, "--resume")
    assert answer.code == 0 and answer.out.count("finished before") == 4 and "over 2 seeds" in answer.out


def test_comparison_by_hand(study, tmp_path):
    pilot = load_sweep(study, tmp_path / "out")
    ends = {("unified", 3): 0.5, ("unified", 4): 0.7, ("separate", 3): 0.4, ("separate", 4): 0.2}
    ends |= {("turns", 3): 0.5, ("turns", 4): 0.5}

    def table(value):
        skills = {"draw": {"overall": value}, "answer": {"overall": value / 2, "open-ended": 0.1}}
        return {**skills, "held_out": skills}

    for (strategy, seed), value in ends.items():
        folder = tmp_path / "out" / strategy / f"seed_{seed}"
        folder.mkdir(parents=True)
        stages = {stage.name: {"after": table(value)} for stage in pilot.plans[strategy][seed].stages}
        (folder / "summary.json").write_text(json.dumps({"starts": {"start": table(0.3)}, "stages": stages}))
    compared = compare(pilot, tmp_path / "out")
    unified = compared["unified"]["draw"]
    assert unified.values == (0.5, 0.7) and unified.difference is None
    assert unified.gain == pytest.approx((0.3, 12.706 * 0.1), abs=1e-3)  # deviations 0.1, 0.1: s = 0.1414, / sqrt 2
    assert compared["separate"]["draw"].difference == pytest.approx((-0.3, 12.706 * 0.2), abs=1e-3)  # -0.1 and -0.5
    assert compared["separate"]["answer"].gain == pytest.approx((0.0, 12.706 * 0.05), abs=1e-3)
    assert "multiple choice" not in compared["unified"] and compared["unified"]["open-ended"].gain[0] == 0
