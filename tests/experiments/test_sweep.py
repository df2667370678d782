"""Sweeps: loading, running, comparing by hand, extending."""

import json
import math

import pytest
import yaml

from motet.config.sweep import load_sweep
from motet.core.errors import ConfigError
from motet.experiments.sweep_report import plot, sweep_tables
from motet.experiments.sweep_results import SweepResult, compare
from motet.report.run_lock import held_output
from tests.experiments.test_stages import EVAL
from tests.experiments.test_tracks import TRACKS
from tests.runs import mapping, motet_command


@pytest.fixture
def path(tiny_checkpoint, tmp_path):
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
                "stages": {"draw": alone["draws"], "answer": {"init_from": "draw", **alone["answers"]}},
                "result": {"draw": "draw", "answer": "answer"},
            },
            "turns": {"stages": {"both": {"tracks": TRACKS, "run": {"steps_per_track": 1}}}, "result": "both"},
        },
    }  # fmt: skip
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_a_sweep_is_loaded(path, tmp_path):
    sweep = load_sweep(path, tmp_path / "out")
    assert (
        sweep.seeds == (3, 4) and list(sweep.plans) == ["unified", "separate", "turns"] and sweep.baseline == "unified"
    )
    for strategy in sweep.plans:
        for seed in (3, 4):
            assert {stage.recipe.run.seed for stage in sweep.plans[strategy][seed].stages} == {seed}
    start = sweep.plans["separate"][4].stage("answer").recipe.policy.path
    assert start == str(tmp_path / "out" / "separate" / "seed_4" / "draw" / "checkpoints" / "step_000002")
    assert sweep.budget("unified") == {"text_to_image": 2 * 2 * 3, "answer": 2 * 2 * 3}
    assert sweep.budget("separate") == {"text_to_image": 2 * 2 * 3, "answer": 2 * 2 * 3}
    assert sweep.budget("turns") == {"text_to_image": 1 * 3 * 3, "answer": 1 * 2 * 3}
    odd = load_sweep(path, tmp_path / "out", ["strategies.turns.stages.both.run.steps=5"])
    assert odd.budget("turns") == {"text_to_image": 3 * 3 * 3, "answer": 2 * 2 * 3}  # draw, answer, draw, answer, draw


def test_a_strategy_can_use_the_runs_of_another(path, tmp_path):
    content = yaml.safe_load(path.read_text())
    content["strategies"]["draws alone"] = {"same_stages_as": "separate", "result": {"draw": "draw"}}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    sweep, out = load_sweep(path, tmp_path / "out"), tmp_path / "out"
    assert sweep.folder(out, "draws alone", 3) == sweep.folder(out, "separate", 3) == out / "separate" / "seed_3"
    assert sweep.plans["draws alone"] is sweep.plans["separate"] and sweep.results["draws alone"] == {"draw": "draw"}
    assert sweep.budget("draws alone") == sweep.budget("separate")
    with pytest.raises(
        ConfigError,
        match=r"turns.same_stages_as: 'later' is not an earlier strategy with stages.*Fix: write one of unif",
    ):
        load_sweep(path, out, ["strategies.turns={same_stages_as: later, result: both}"])


def test_unequal_budgets_are_rejected_unless_allowed(path, tmp_path):
    with pytest.raises(
        ConfigError, match="a seed of 'unified' generates 12 answer, 12 text_to_image, of 'turns' 6 answer"
    ):
        load_sweep(path, tmp_path / "out", ["budget=equal"])
    tracks = [f"strategies.turns.stages.both.tracks.{name}.prompts_per_step=2" for name in ("draws", "answers")]
    even = [*tracks, "strategies.turns.stages.both.run.steps=4", "budget=equal"]
    assert load_sweep(path, tmp_path / "out", even).budget("turns") == {"text_to_image": 12, "answer": 12}
    with pytest.raises(ConfigError, match="budget: 'fair' does not fit; expected one of equal, free"):
        load_sweep(path, tmp_path / "out", ["budget=fair"])


def test_a_sweep_without_matplotlib_does_not_start(path, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("motet.experiments.sweep.find_spec", lambda name: None)
    answer = motet_command(capsys, "sweep", path, "-o", tmp_path / "out")
    assert answer.code == 2 and "pip install 'motet[plots]'" in answer.err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=[1]", "did you mean 'seeds'"),
        ("seeds=3", "seeds: 3 does not fit; expected a list of entries, each a whole number"),
        ("seeds=[]", "seeds: is empty"),
        ("strategies={a: {}}", "strategies.a.result: missing; expected a mapping"),
        ("baseline=unfied", "baseline: 'unfied' is not a strategy"),
        ("strategies.unified.result=bth", "strategies.unified.result: 'bth' is not a stage"),
        ("shared.eval.suite=rewards", "names 'draw', whose eval.suite is rewards; the columns are those of the shapes"),
        ("shared.eval.suite=none", "strategies.unified.result: names 'both', which is not evaluated"),
        ("strategies.unified.extra=1", "strategies.unified.extra: the key is unknown (its value here is 1)"),
        (
            "strategies.separate.stages.draw.run.stepz=1",
            "strategies.separate.stages.draw.run.stepz: the key is unknown",
        ),
        ("strategies={a: {stages: {x: {}}, result: x}}", "strategies: expected two or more strategies"),
        ("strategies.unified.same_stages_as=x", "strategies.unified.same_stages_as: has no effect beside stages"),
        ("strategies.unified.stages.both.init_from=x", "unified.stages.both.init_from: 'x' is not an earlier stage"),
        ("against=unified", "against: was renamed to baseline"),
        ("strategies.unified.stages.both.from=x", "was renamed to strategies.unified.stages.both.init_from"),
        ("shared.run.stepz=1", "shared.run.stepz: the key is unknown"),
        ("shared.run.turn=1", "shared.run.turn: was renamed to shared.run.steps_per_track"),
        ("run.steps=1", "run: is a key of recipes; a sweep has no such key"),
    ],
)
def test_invalid_values_are_named(path, tmp_path, override, message):
    with pytest.raises(ConfigError) as error:
        load_sweep(path, tmp_path / "out", [override])
    assert message in str(error.value)


def test_a_part_of_a_sweep(path, tmp_path):
    sweep = load_sweep(path, tmp_path / "out")
    part = sweep.part(["turns"], [4])
    assert (list(part.plans), part.seeds, part.baseline) == (["turns"], (4,), "unified")
    assert part.plans["turns"] is sweep.plans["turns"] and sweep.part([], []) == sweep
    for chosen, message in (((["turn"], []), "'turn' is not a strategy of the sweep"), (([], [5]), "5 is not a seed")):
        with pytest.raises(ConfigError, match=message):
            sweep.part(*chosen)


def test_parts_are_run_into_one_output(path, tmp_path, capsys):
    out = tmp_path / "out"
    part = ("sweep", path, "-o", out, "--only", "turns", "--seed")
    answer = motet_command(capsys, *part, 4)
    compare_command = f"motet sweep {path} --output {out} --resume"
    assert answer.code == 0 and f"compare them with: {compare_command}" in answer.out.replace("\n", " "), answer.err
    assert (out / "turns" / "seed_4" / "summary.json").is_file() and not (out / "sweep.json").exists()
    answer = motet_command(capsys, *part, 4)
    assert answer.code == 2 and "seed_4" in answer.err and "add --resume" in answer.err
    answer = motet_command(capsys, *part, 4, "--resume")
    assert answer.code == 0 and "already finished" in answer.out
    with held_output(out / "turns" / "seed_3"):
        answer = motet_command(capsys, *part, 3)
    assert answer.code == 2 and "in use" in answer.err
    with held_output(out / "unified" / "seed_3"):  # another part may run meanwhile
        assert motet_command(capsys, *part, 3).code == 0


@pytest.mark.slow
def test_a_sweep_is_run_and_extended(path, tmp_path, capsys):
    out = tmp_path / "out"
    answer = motet_command(capsys, "sweep", path, "seeds=[3]", "-o", out)
    assert answer.code == 0 and "over 1 seeds" in answer.out and (out / "sweep.png").is_file()
    assert json.loads((out / "sweep.json").read_text())["unified"]["draw"]["gain_interval"] is None
    answer = motet_command(capsys, "sweep", path, "-o", out, "--resume")
    assert answer.code == 0 and answer.out.count("already finished") == 4 and "over 2 seeds" in answer.out


OWN = {"suite": {"name": "rewards"}, "size": 3, "samples_per_item": 2}


def with_rewards_suite(path):
    """The sweep with the suite `rewards`, and a strategy in two stages of one track each."""
    content = yaml.safe_load(path.read_text())
    content["shared"]["eval"] = OWN
    strategies = content["strategies"]
    strategies["separate"]["result"] = "answer"
    strategies["draws alone"] = {"same_stages_as": "separate", "result": "draw"}
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def test_a_sweep_compares_what_any_suite_measures(path, tmp_path):
    with_rewards_suite(path)
    sweep, out = load_sweep(path, tmp_path / "out"), tmp_path / "out"

    def table(*values):
        entries = ({"mean": v, "interval": 0.1, "greedy": v + 10, "rows": 3.0, "by_row": [v] * 3} for v in values)
        rewards = dict(zip(("reddish", "spacious"), entries, strict=False))
        return {"both": rewards, "other": {"unseen": {"mean": None, "greedy": None}}}

    for seed, after in ((3, 5.0), (4, 7.0)):
        for strategy, gain in (("unified", 0.0), ("separate", -1.0), ("turns", 0.5)):
            folder = out / strategy / f"seed_{seed}"
            folder.mkdir(parents=True)
            stages = {
                stage.name: {
                    "before": table(9.0, 9.0) if stage.init_from else table(2.0),
                    "after": table(after + gain, 1.0),
                }
                for stage in sweep.plans[strategy][seed].stages
            }
            (folder / "summary.json").write_text(json.dumps({"starts": {}, "stages": stages}))
    compared = compare(sweep, out)
    assert {name: list(row) for name, row in compared.items()} == {
        name: ["both: reddish", "greedy, both: reddish"] for name in sweep.plans
    }
    assert compared["unified"]["both: reddish"].gain == pytest.approx((4.0, 12.706), abs=1e-2)  # 3 and 5
    assert compared["separate"]["both: reddish"].values == (4.0, 6.0)  # gains over the first stage's start, 2
    assert compared["separate"]["both: reddish"].gain[0] == compared["draws alone"]["both: reddish"].gain[0] == 3.0
    assert compared["turns"]["greedy, both: reddish"].difference == (0.5, 0.0)
    shown = sweep_tables(sweep, compared)
    assert [[str(c.header) for c in one.columns][2:] for one in shown] == [["both: reddish"], ["greedy, both: reddish"]]
    assert list(shown[0].columns[2].cells)[1] == "+3.000 ± 12.706\n[-1.000 ± 0.000]"
    assert "in points" not in shown[0].title
    plot(sweep, compared, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").is_file()
    for strategy in ("unified", "turns"):  # of the baseline one seed lacks the value, of another strategy both
        for seed in (3, 4)[: 1 if strategy == "unified" else 2]:
            path = out / strategy / f"seed_{seed}" / "summary.json"
            path.write_text(path.read_text().replace("reddish", "other"))
    fewer = compare(sweep, out)
    assert "unified" not in fewer and fewer["separate"]["both: reddish"].difference is None
    assert list(fewer["turns"]) == ["both: other", "greedy, both: other"]


@pytest.mark.slow
def test_a_sweep_with_the_rewards_suite_is_run(path, tmp_path, capsys):
    with_rewards_suite(path)
    answer = motet_command(capsys, "sweep", path, "seeds=[3]", "-o", tmp_path / "out")
    assert answer.code == 0 and "values of the suite" in answer.out, answer.err
    found = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert all(row for row in found.values()) and "greedy, draws: reddish" in found["turns"]


def test_comparison_by_hand(path, tmp_path):
    sweep = load_sweep(path, tmp_path / "out")
    ends = {("unified", 3): 0.5, ("unified", 4): 0.7, ("separate", 3): 0.4, ("separate", 4): 0.2}
    ends |= {("turns", 3): 0.5, ("turns", 4): 0.5}

    def table(value):
        skills = {"draw": {"overall": value}, "answer": {"overall": value / 2, "open-ended": 0.1}}
        better = {name: {"overall": part["overall"] + 0.1} for name, part in skills.items()}
        return {**skills, "held_out": skills, "greedy": better, "pass@2": skills, "pass@16": better}

    for (strategy, seed), value in ends.items():
        folder = tmp_path / "out" / strategy / f"seed_{seed}"
        folder.mkdir(parents=True)
        stages = {stage.name: {"after": table(value)} for stage in sweep.plans[strategy][seed].stages}
        (folder / "summary.json").write_text(json.dumps({"starts": {"start": table(0.3)}, "stages": stages}))
    compared = compare(sweep, tmp_path / "out")
    unified = compared["unified"]["draw"]
    assert unified.values == (0.5, 0.7) and unified.difference is None
    assert unified.gain == pytest.approx((0.3, 12.706 * 0.1), abs=1e-3)  # deviations 0.1, 0.1: s = 0.1414, / sqrt 2
    assert compared["separate"]["draw"].difference == pytest.approx((-0.3, 12.706 * 0.2), abs=1e-3)  # -0.1 and -0.5
    assert compared["separate"]["draw"].effect == pytest.approx(-0.3 / (0.4 / math.sqrt(2)))
    assert compared["separate"]["answer"].gain == pytest.approx((0.0, 12.706 * 0.05), abs=1e-3)
    assert "multiple choice" not in compared["unified"] and compared["unified"]["open-ended"].gain[0] == 0
    for column in ("greedy draw", "pass@k draw"):  # of the most samples
        assert compared["unified"][column].values == pytest.approx((0.6, 0.8))
    assert "only-drawn draw" not in compared["unified"]
    shown = sweep_tables(sweep, compared)
    assert [[str(c.header) for c in table.columns][2:] for table in shown] == [
        ["draw", "answer", "open-ended", "held-out draw", "held-out answer"],
        ["greedy draw", "greedy answer", "pass@k draw", "pass@k answer"],
    ]
    assert "[-30.0 ± 254.1, d -1.1]" in list(shown[0].columns[2].cells)[1]
    alone = SweepResult((0.1, math.inf), None, None, (0.4,)).to_json()
    assert alone == {
        "values": (0.4,),
        "effect": None,
        "gain": 0.1,
        "gain_interval": None,
        "difference": None,
        "difference_interval": None,
    }


def test_a_strategy_that_begins_with_sft_is_compared_with_the_same_start(path, tmp_path):
    out = tmp_path / "out"

    def write(sweep):
        for strategy in sweep.plans:
            folder = out / strategy / "seed_3"
            folder.mkdir(parents=True, exist_ok=True)
            stages = {stage.name: {"after": accuracies(0.5)} for stage in sweep.plans[strategy][3].stages}
            starts = {} if strategy == "turns" else {"start": accuracies(0.3)}  # as of a first stage of SFT
            (folder / "summary.json").write_text(json.dumps({"starts": starts, "stages": stages}))

    def accuracies(value):
        return {"draw": {"overall": value}, "answer": {"overall": value}}

    sweep = load_sweep(path, out, ["seeds=[3]"])
    write(sweep)
    assert compare(sweep, out)["turns"]["draw"].gain[0] == pytest.approx(0.2)
    for other in ("eval.size=7", "policy.path=elsewhere"):
        sweep = load_sweep(path, out, ["seeds=[3]", f"strategies.turns.stages.both.{other}"])
        assert set(compare(sweep, out)) == {"unified", "separate"}, other
