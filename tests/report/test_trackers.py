"""Trackers: what they are told, and that their failures never reach the run."""

from __future__ import annotations

import json
import threading

import pytest
from PIL import Image

from motet.config import parse_recipe
from motet.config.choice import Choice
from motet.core.errors import ConfigError
from motet.core.task import Task
from motet.core.trajectory import Sampling, Scores
from motet.report.callbacks import RolloutBatch
from motet.report.tracker_ids import read_tracker_ids
from motet.report.trackers import Results, RunInfo, Samples
from motet.report.trackers import delivery as delivery_module
from motet.report.trackers.tracking import Tracking, resolve_trackers, rollout_samples
from motet.scenarios import generate_and_answer
from motet.testing import FakePolicy
from motet.training.rollout import rollout

RECIPE = {"policy": {"path": "model"}, "run": {"steps": 3, "log_samples_every": 2}}


class Recorder:
    """A tracker that keeps what it is told; `fails` are the methods that raise, `gate` what every call waits for."""

    def __init__(self, fails=(), gate=None):
        self.calls, self.fails, self.gate = [], fails, gate

    def start(self, run, resumed):
        self._call("start", run.step, resumed)
        return "id-7"

    def log(self, step, metrics):
        self._call("log", step, metrics)

    def log_samples(self, step, samples):
        self._call("log_samples", step, samples)

    def finish(self, results):
        self._call("finish", results.rows)

    def _call(self, method, *arguments):
        if self.gate is not None:
            self.gate.wait(20)
        self.calls.append((method, *arguments))
        if method in self.fails:
            raise OSError(28, "No space left on device")


def run(tracker, folder, *, steps=3, first=0, end_seconds=20.0):
    """The events of a run of a few steps."""
    tracking = Tracking({"mine": tracker}, end_seconds=end_seconds)
    tracking.on_run_start(parse_recipe(RECIPE), folder)
    if first == 0:
        tracking.on_eval(0, {"eval/accuracy": 0.1})
    for step in range(first + 1, steps + 1):
        tracking.on_rollout(step, [RolloutBatch("", [], [], {})])
        if step == 2:
            tracking.on_eval(step, {"eval/accuracy": 0.5})
        tracking.on_step_end(step, {"reward": step / 10, **({"eval/accuracy": 0.5} if step == 2 else {})})
    if steps == 2:  # the evaluation after the run, of what the last step evaluated too
        tracking.on_eval(steps, {"eval/accuracy": 0.6})
    tracking.on_run_end(steps, {})
    return tracking


def test_a_tracker_is_told_steps_samples_evaluations_and_results(tmp_path):
    tracker = Recorder()
    (tmp_path / "summary.json").write_text(
        json.dumps({"before": {"a": {"b": 0.25}}, "after": {"a": {"b": 1, "by_item": [1, 0]}}})
    )
    Image.new("RGB", (4, 4)).save(tmp_path / "after.png")
    run(tracker, tmp_path)
    names = [(method, step) for method, step, *_ in tracker.calls[:-1]]
    assert names == [
        ("start", 0), ("log", 0), ("log", 1), ("log_samples", 2), ("log", 2), ("log", 3), ("log_samples", 3),
    ]  # fmt: skip
    assert tracker.calls[4] == ("log", 2, {"reward": 0.2, "eval/accuracy": 0.5})  # an evaluation is told once
    assert tracker.calls[-2][2].name == "after" and tracker.calls[-2][2].images[0].image.size == (4, 4)
    assert tracker.calls[-1] == ("finish", [("a.b", 0.25, 1.0)])


def test_the_last_step_has_one_point_of_each_evaluation(tmp_path):
    tracker = Recorder()
    run(tracker, tmp_path, steps=2)
    metrics = [(step, value) for method, step, value in tracker.calls[:-1] if method == "log"]
    logged = [(step, value["eval/accuracy"]) for step, value in metrics if "eval/accuracy" in value]
    assert logged == [(0, 0.1), (2, 0.5)]


def test_fixed_prompts_are_logged_without_rewards(tmp_path):
    samplings = {"text": Sampling(), "image": Sampling()}
    row = {"question": "how many?", "prompt": "two red circles", "answer": "2"}
    groups = rollout(FakePolicy(), generate_and_answer, [Task(3, row)], 1, samplings=samplings, seed=0, step=0)
    tracker = Recorder()
    tracking = Tracking({"mine": tracker})
    tracking.on_run_start(parse_recipe(RECIPE), tmp_path)
    tracking.on_fixed_prompts(0, [RolloutBatch("shapes", groups, [], {})])
    tracking.on_run_end(0, {})
    step, samples = next(call[1:] for call in tracker.calls if call[0] == "log_samples")
    assert (step, samples.name) == (0, "fixed_prompts/shapes")
    assert "two red circles" in samples.images[0].caption and "reward" not in samples.images[0].caption
    assert samples.texts[0].reward is None


def test_the_id_is_kept_over_a_resume(tmp_path):
    run(Recorder(), tmp_path, steps=1)
    assert read_tracker_ids(tmp_path) == {"mine": "id-7"}
    (tmp_path / "checkpoints" / "step_000001").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step_000001" / "config.json").write_text("{}")
    tracker = Recorder()
    run(tracker, tmp_path, first=1)
    assert tracker.calls[0][2] == "id-7"
    assert [step for method, step, *_ in tracker.calls if method == "log"] == [2, 3]


def test_a_tracker_that_raises_is_named_once_and_what_it_misses_is_counted(tmp_path):
    tracker = Recorder(fails=("log",))
    with pytest.warns(UserWarning) as caught:
        run(tracker, tmp_path)
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 2
    assert "The tracker 'mine' raised OSError: [Errno 28] No space left on device in log()" in texts[0]
    assert "'mine' misses 4 of 5 records (4 raised an exception)" in texts[1]
    assert tracker.calls[-1][0] == "finish"


def test_a_tracker_that_cannot_start_is_left_out(tmp_path):
    tracker = Recorder(fails=("start",))
    with pytest.warns(UserWarning) as caught:
        run(tracker, tmp_path)
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 2 and "in start(); it is left out of this run" in texts[0]
    assert "misses 5 of 5 records" in texts[1]
    assert [method for method, *_ in tracker.calls] == ["start"]
    assert read_tracker_ids(tmp_path) == {}


def test_a_tracker_that_hangs_does_not_stop_the_run(tmp_path):
    gate = threading.Event()
    with pytest.warns(UserWarning, match=r"'mine' misses 5 of 5 records \(5 not taken in time\)") as caught:
        run(Recorder(gate=gate), tmp_path, end_seconds=0.2)
    assert len(caught) == 1
    gate.set()


def test_a_slow_tracker_misses_what_it_has_no_time_for(tmp_path, monkeypatch):
    monkeypatch.setattr(delivery_module, "MAX_WAITING", 2)
    gate = threading.Event()
    tracker, told = Recorder(gate=gate), []
    tracking = Tracking({"mine": tracker}, end_seconds=20.0)
    tracking.on_run_start(parse_recipe(RECIPE), tmp_path)
    with pytest.warns(UserWarning) as caught:
        for step in range(1, 9):
            tracking.on_step_end(step, {})
        gate.set()
        tracking.on_run_end(8, {})
    told = [str(warning.message) for warning in caught]
    taken = sum(method == "log" for method, *_ in tracker.calls)
    assert 0 < taken < 8 and len(told) == 2 and "is slower than the run" in told[0]
    assert f"misses {8 - taken} of 8 records ({8 - taken} dropped)" in told[1]


def test_images_that_wait_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(delivery_module, "MAX_WAITING_SAMPLES", 2)
    gate, kept = threading.Event(), []
    delivery = delivery_module.Delivery("mine", Recorder(gate=gate), kept.append)
    delivery.start(RunInfo("demo", tmp_path, {}, ""), None)
    for step in range(5):
        delivery.put("log_samples", step, Samples("samples"))
    assert delivery._dropped == 3
    gate.set()
    delivery.finish(Results())
    assert delivery.wait(20.0) and delivery.lost == "misses 3 of 5 records (3 dropped)"


# --- which trackers


def test_a_missing_library_says_what_to_install(monkeypatch):
    monkeypatch.setattr("motet.report.trackers.tracking.find_spec", lambda module: None)
    for name, extra in (
        ("tensorboard", "tensorboard"),
        ("wandb", "wandb"),
        ("trackio", "trackio"),
        ("mlflow", "mlflow"),
    ):
        with pytest.raises(ConfigError) as error:
            resolve_trackers([Choice.of(name)])
        assert str(error.value) == (
            f"run.report_to={name!r} needs the package {name}. Fix: pip install \"motet[{extra}]\"."
        )  # fmt: skip


def test_a_wrong_tracker_is_an_error(monkeypatch):
    monkeypatch.setattr("motet.report.trackers.tracking.find_spec", lambda module: module)
    for choices, message in (
        ([Choice.of("tensorbord")], "Did you mean 'tensorboard'"),
        ([Choice.of("wandb", projct="x")], "has no option 'projct'.*Did you mean 'project'"),
        ([Choice.of("wandb"), Choice.of("wandb")], "given twice"),
        ([Choice.of("collections:Counter")], "without the method log"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve_trackers(choices)


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("tensorboard", ["tensorboard"]),
        ("none", []),
        ("[tensorboard, {name: wandb, project: x, mode: offline}]", ["tensorboard", "wandb"]),
        ("{name: wandb, project: x}", ["wandb"]),
    ],
)
def test_one_tracker_needs_no_list(written, names):
    recipe = parse_recipe(RECIPE, [f"run.report_to={written}"])
    assert [choice.name for choice in recipe.run.report_to] == names


# --- samples


def test_samples_are_images_and_texts_with_rewards():
    row = {"question": "how many?", "prompt": "two red circles", "answer": "2"}
    samplings = {"text": Sampling(), "image": Sampling()}
    groups = rollout(FakePolicy(), generate_and_answer, [Task(3, row)], 3, samplings=samplings, seed=0, step=0)
    scores = Scores({"a": (1.0, None, 0.0), "b": (0.5, None, 0.25)})
    samples = rollout_samples(RolloutBatch("shapes", groups, [scores], {"a": 1.0, "b": 2.0}))
    assert samples.name == "samples/shapes" and len(samples.images) == len(samples.texts) == 2
    assert samples.images[0].caption.startswith("reward 2.00: ") and "two red circles" in samples.images[0].caption
    assert [text.reward for text in samples.texts] == [2.0, None]
    assert samples.rows[0][0] == "answer" and samples.rows[0][3] == samples.texts[0].text
