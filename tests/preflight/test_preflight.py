"""The checks change nothing, print one line or a table, and watch their bounds during a run."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from motet.core.errors import PreflightError
from motet.preflight.findings import CheckResult, PreflightReport, stop, warn
from motet.preflight.restoring import restored
from motet.preflight.watch import BoundsWatch
from motet.report.run_dir import RunFolder
from motet.training.weights_digest import SAMPLED, modules_of, weights_digest
from tests.preflight.planting import ROWS, World
from tests.runs import REWARDS, metrics, motet_command, write_recipe

SMALL = {"run": {"steps": 1, "prompts_per_step": 2, "threads": 1}, "eval": {"suite": "none"}}
DRAWS = f"{Path(__file__).parent / 'wrong_rewards.py'}:draws"


def test_the_tiny_step_changes_nothing(world: World) -> None:
    rewards = [{"name": DRAWS, "acts": ["image"]}, {"name": DRAWS, "acts": ["answer"]}]
    session = world.fresh(rewards=rewards)
    policy, optimizer = session.policy, session.optimizer

    def state() -> dict[str, object]:
        return {
            "weights": weights_digest(policy),
            "gradients": [parameter.grad for parameter in policy.model.parameters()],
            "modes": [module.training for module in policy.model.modules()],
            "data": session.data_state(),
            "version": (policy.version, optimizer.num_steps, optimizer.received_gradient),
            "moments": len(optimizer.adamw.state),
        }

    policy.model.model.vision_model.train()  # whatever the modes are, they stay
    before = state()
    report = world.check(session)
    assert state() == before
    assert not report.with_outcome("stop")
    assert len(report.with_outcome("ok")) > 20


def test_global_generators_go_on_as_if_nothing_had_drawn(world: World) -> None:
    def states() -> tuple[object, ...]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    session = world.session()
    before = states()
    with restored(session):
        random.random()
        np.random.rand()
        torch.rand(())
    assert states() == before


def test_a_digest_sees_every_weight_of_small_tensors_and_buffers(world: World) -> None:
    policy = world.session().policy
    before = weights_digest(policy)
    assert len(before) >= len(list(policy.model.parameters()))
    name, parameter = next((n, p) for n, p in policy.trainable().items() if p.numel() <= SAMPLED)
    with torch.no_grad():
        parameter.view(-1)[-1] += 1e-6
    changed = [key for key, digest in weights_digest(policy).items() if digest != before[key]]
    with torch.no_grad():
        parameter.view(-1)[-1] -= 1e-6
    assert changed == [name]
    assert modules_of(torch.nn.Sequential(torch.nn.Linear(1, 1))).keys() == {"0"}


def test_an_error_names_every_fault_with_cause_and_fix() -> None:
    found = [stop("A is off.", cause="a cause", fix="fix a."), warn("B is odd.", cause="chance", fix="look at b.")]
    results = tuple(CheckResult(name, "", (one,)) for name, one in zip("ab", found, strict=True))
    report = PreflightReport((*results, CheckResult("c", ""), CheckResult("d", "", note="no d")), 1.23)
    assert report.line == "preflight: 1 check passed, 1 stopped, 1 warned in 1.2 s"
    with pytest.raises(PreflightError) as caught:
        report.raise_if_stopped()
    assert "1 fault: [a] A is off (a cause)." in caught.value.problem and "B is odd" not in caught.value.problem
    assert caught.value.fix == "[a] fix a. Or start without the checks: --skip-preflight."
    PreflightReport(results[1:], 0.0).raise_if_stopped()


def test_bounds_are_watched_and_told_again_when_they_grow(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", resume=False)
    folder.create("")
    watch = BoundsWatch(folder, rounds=False)
    key = "text/train_rollout_logprob_diff"
    for step, value in enumerate((1e-5, 0.002, 0.004, 0.01, 0.011), 1):
        expected = step in (2, 4)
        if expected:
            with pytest.warns(UserWarning, match=f"Step {step}: {key} is {value:g} nats, more than 0.001"):
                watch.on_step_end(step, {key: value, "image/train_rollout_logprob_diff_max": 0.01, "loss": 3.0})
        else:
            watch.on_step_end(step, {key: value, "reward": 9.0})
    lines = [json.loads(line) for line in (tmp_path / "run" / "warnings.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 3]
    resumed = BoundsWatch(folder, rounds=False)
    resumed.load_state_dict(json.loads(json.dumps(watch.state_dict())))
    resumed.on_step_end(6, {key: 0.011})  # the run has been told
    coarse = BoundsWatch(folder, rounds=True)
    coarse.on_step_end(1, {key: 0.04, f"{key}_max": 0.9, "text/train_rollout_ratio_outside": 0.09})
    with pytest.warns(UserWarning, match="ratio_outside is 0.2, more than 0.1"):
        coarse.on_step_end(2, {"text/train_rollout_ratio_outside": 0.2})


@pytest.mark.preflight
def test_a_run_is_the_same_with_and_without_checks(tiny_checkpoint, capsys, tmp_path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, **SMALL)
    done = motet_command(capsys, "train", recipe, "--output", tmp_path / "a")
    assert done.code == 0 and "checks passed" in done.out and "stopped" not in done.out
    with pytest.warns(UserWarning, match="The checks before the first step are skipped"):
        skipped = motet_command(capsys, "train", recipe, "--output", tmp_path / "b", "--skip-preflight")
    assert skipped.code == 0 and "checks passed" not in skipped.out
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    resumed = motet_command(capsys, "train", recipe, "run.steps=2", "--output", tmp_path / "a", "--resume")
    assert resumed.code == 0 and "checks passed" not in resumed.out


@pytest.mark.preflight
def test_a_fault_stops_a_run_before_its_first_step(tiny_checkpoint, capsys, tmp_path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, **SMALL)
    wrong = f"rewards=[{{name: '{REWARDS}undefined', acts: [answer]}}, {{name: '{REWARDS}reddish', acts: [image]}}]"
    stopped = motet_command(capsys, "train", recipe, wrong, "--output", tmp_path / "out")
    assert stopped.code == 2 and not (tmp_path / "out").exists()
    assert "[rewards] Reward" in stopped.err and "--skip-preflight" in stopped.err
    assert " stopped" in stopped.out and "undefined" not in stopped.out  # the error alone tells what it is
    judged = motet_command(capsys, "doctor", recipe, wrong)
    assert judged.code == 1 and "rewards" in judged.out and " stopped" in judged.out
    assert motet_command(capsys, "doctor", recipe).code == 0
    broken = motet_command(capsys, "doctor", recipe, f"policy.path={tmp_path}/none")
    assert broken.code in (1, 2) and "/none" in re.sub(r"[\s│]", "", broken.out + broken.err)  # of a narrow table


def test_supervised_training_is_checked_and_left_as_it_was(world: World) -> None:
    session = world.sft_policy()
    before = weights_digest(session.policy), session.data_state(), session.optimizer.received_gradient
    report = world.check(session)
    assert (weights_digest(session.policy), session.data_state(), session.optimizer.received_gradient) == before
    outcomes = {result.name: result.outcome for result in report.results}
    assert {name for name, outcome in outcomes.items() if outcome != "ok"} <= {
        "eval_overlap", "rejected_targets", "reference",
    }  # fmt: skip
    assert {"targets", "target_causal", "gradient_trainable", "replay_batches"} <= set(outcomes)
    assert not {"rollout", "rewards", "ratio"} & set(outcomes)


def test_a_check_belongs_to_rl_and_sft_unless_it_says_so(world: World) -> None:
    rejected = world.check(world.sft([{**row, "bad": "no"} for row in ROWS], rejected={"answer": "bad"}))
    assert not rejected.with_outcome("stop") and not rejected.error
    assert {"rejected_targets", "reference"} <= {result.name for result in rejected.with_outcome("ok")}


@pytest.mark.preflight
@pytest.mark.slow
def test_doctor_and_sft_check_the_targets(tiny_checkpoint, capsys, tmp_path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({**row, "answer": " "}) + "\n" for row in ROWS), encoding="utf-8")
    changes = {"scenario": "answer", "rewards": None, "algorithm": None, **SMALL}
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, **changes)
    empty = ["data.targets={answer: answer}", f"data.source={rows}", "data.options={}"]
    stopped = motet_command(capsys, "sft", recipe, *empty, "--output", tmp_path / "out")
    assert stopped.code == 2 and "[target_variety] The target of the act 'answer' is an empty text" in stopped.err
    assert not (tmp_path / "out").exists()
    judged = motet_command(capsys, "doctor", recipe, *empty, "--sft")
    assert judged.code == 1 and "target_variety" in judged.out
    good = "data.targets={answer: solution}"
    assert motet_command(capsys, "doctor", recipe, good, "--sft").code == 0
    done = motet_command(capsys, "sft", recipe, good, "--output", tmp_path / "out")
    assert done.code == 0 and "checks passed" in done.out
    plan = tmp_path / "plan.yaml"
    shared = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    shared["data"]["targets"] = {"answer": "solution"}
    plan.write_text(yaml.safe_dump({"shared": shared, "stages": {"cold": {"kind": "sft"}}}), encoding="utf-8")
    assert motet_command(capsys, "doctor", plan, "--stage", "cold").code == 0


def test_rows_of_a_file_are_checked_without_moving_its_cursor(world: World) -> None:
    session = world.answers(ROWS)
    report = world.check(session)
    assert not report.with_outcome("stop")
    assert session.tracks[0].cursor.num_consumed == 0
    assert [task.index for task in session.tracks[0].cursor.peek(2)] == [
        task.index for task in session.tracks[0].cursor.next(2)
    ]
