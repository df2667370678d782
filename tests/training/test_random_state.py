"""Random numbers that are not keyed, and what callbacks keep, go on where a checkpoint was saved."""

import json
import random

import numpy as np
import pytest
import torch

from motet.config import parse_recipe
from motet.core.errors import CheckpointError
from motet.report.callbacks import Callback, CallbackList
from motet.report.monitors.best_checkpoint import BestCheckpoint
from motet.report.monitors.metric_bound import MetricBound
from motet.report.run_dir import RunFolder
from motet.training.random_state import RandomStates, capture, restore_generators, seed_generators
from motet.training.run_loop import Run
from motet.training.setup import setup_rl
from motet.training.signals import Interrupt
from motet.training.trainer import train
from motet.weights.locate import best_checkpoint, latest_checkpoint
from tests.runs import mapping, metrics, run_loop

OWN = [{"name": f"{__file__}:unkeyed", "acts": ["image"]}, {"name": f"{__file__}:unkeyed", "acts": ["answer"]}]


def draw() -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        float(torch.rand(())),
    ]


def unkeyed(completions, **_):
    """A user's reward that draws from global generators; not Python's, from which beartype draws in these tests."""
    return [sum(draw()[2:]) for _ in completions]


def test_every_generator_goes_on_from_a_state_that_json_holds():
    seed_generators(7)
    first = draw()
    state = json.loads(json.dumps(capture()))
    expected = [draw(), draw()]
    seed_generators(8)
    assert draw() != first
    restore_generators(state)
    assert [draw(), draw()] == expected
    seed_generators(7)
    assert draw() == first
    seed_generators(2**32 + 7)  # more than numpy takes
    assert draw() != first


def test_a_reward_with_random_numbers_of_its_own_resumes_bit_exactly(tiny_checkpoint, tmp_path):
    recipe = mapping(tiny_checkpoint, rewards=OWN, run={"steps": 3, "prompts_per_step": 1})
    run_loop(recipe, tmp_path / "whole")
    draw()
    run_loop(recipe, tmp_path / "parts", stop_after=1)
    seed_generators(99)  # another process would stand elsewhere
    run_loop(recipe, tmp_path / "parts")
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")
    assert len({line["rewards/unkeyed/mean"] for line in metrics(tmp_path / "whole")}) == 3
    checkpoint = latest_checkpoint(tmp_path / "parts" / "checkpoints")
    state = json.loads((checkpoint / "random_state.json").read_text())
    state[0]["torch"] = "c2hvcnQ="
    (checkpoint / "random_state.json").write_text(json.dumps(state))
    (checkpoint / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match="random generators of rank 0 cannot be restored"):
        run_loop(recipe, tmp_path / "parts")


def test_states_of_all_processes_are_known_to_each(monkeypatch):
    now = {"torch": "a"}  # not a real one, from which beartype would draw
    monkeypatch.setattr("motet.training.random_state.capture", lambda: dict(now))
    one, two = RandomStates(0, 2), RandomStates(1, 2)
    news = [one.news(), {"torch": "b"}]
    assert news[0] == {"torch": "a"} and one.share(news) == two.share(news) == news
    assert one.news() is None  # nothing was drawn: nothing is sent
    now["torch"] = "c"
    assert one.with_own() == [{"torch": "c"}, {"torch": "b"}]
    assert one.news() == {"torch": "c"} and two.share([one.news(), None]) == [{"torch": "c"}, {"torch": "b"}]


class Counting(Callback):
    def __init__(self):
        self.seen = 0

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]

    def on_step_end(self, step, metrics):
        self.seen += 1


class Forgetful:
    """Its state is nothing that JSON holds."""

    def state_dict(self):
        return {"what": object()}

    def on_step_end(self, step, metrics):
        pass


def test_callbacks_of_one_class_get_their_own_states_back():
    first = CallbackList([Counting(), Forgetful(), Counting()])
    first.callbacks[0].seen, first.callbacks[2].seen = 3, 5
    with pytest.warns(UserWarning, match=r"The callback Forgetful raised .* in state_dict\(\); the run goes on"):
        states = first.state_dict()
    second = CallbackList([Counting(), Counting(), Counting()])
    second.load_state_dict(json.loads(json.dumps(states)))
    assert [callback.seen for callback in second.callbacks] == [3, 5, 0]


def test_callbacks_and_monitors_go_on_where_the_checkpoint_was_saved(tiny_checkpoint, tmp_path):
    """Two checks beyond a limit before the resume and one after it are three in a row."""
    recipe = parse_recipe(mapping(tiny_checkpoint, run={"steps": 3, "prompts_per_step": 1}))
    folder = tmp_path / "run"

    def go(stop_after=None):
        interrupt, own = Interrupt(), RunFolder(folder, resume=(folder / "recipe.yaml").is_file())
        counting, bound = Counting(), MetricBound("step_time", min=1e9, patience=3)

        class Stop(Callback):
            def on_step_end(self, step, metrics):
                interrupt.asked = step == stop_after

        callbacks = CallbackList([counting, bound, Stop()])
        with own.held():
            own.create("")
            callbacks.on_run_start(recipe, folder)
            session = setup_rl(recipe)
            train(session, Run(session, own, callbacks, interrupt))
        return counting.seen

    assert go(stop_after=2) == 2
    with pytest.warns(UserWarning, match=r"step_time is .* after step 3, below 1e\+09 in 3 checks in a row"):
        assert go() == 3


def test_the_best_checkpoint_is_known_after_a_kill_before_its_note(tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    recipe = parse_recipe(mapping(tmp_path, eval={"suite": "shapes", "every": 1}))
    killed = BestCheckpoint("eval/skill")
    killed.on_run_start(recipe, folder)
    killed.on_step_end(1, {"eval/skill": 0.5})
    killed.on_checkpoint(1, folder / "checkpoints" / "step_000001")
    killed.on_step_end(2, {"eval/skill": 0.7})
    state = killed.state_dict()  # in the checkpoint of step 2, after which the process is killed
    assert best_checkpoint(folder / "checkpoints").name == "step_000001"
    resumed = BestCheckpoint("eval/skill")
    resumed.on_run_start(recipe, folder)
    resumed.load_state_dict(json.loads(json.dumps(state)))
    assert best_checkpoint(folder / "checkpoints").name == "step_000002"
    resumed.on_step_end(3, {"eval/skill": 0.6})
    assert not resumed.wants_checkpoint
    resumed.on_step_end(4, {"eval/skill": 0.8})
    assert resumed.wants_checkpoint
    other = BestCheckpoint("eval/other")  # another metric knows no best yet
    other.on_run_start(recipe, folder)
    other.load_state_dict(state)
    other.on_step_end(3, {"eval/other": 0.1})
    assert other.wants_checkpoint


def test_warnings_of_steps_that_are_repeated_are_dropped(tmp_path):
    folder = RunFolder(tmp_path / "run", resume=False)
    folder.create("")
    for step in (-1, 0, 1, 2):
        folder.append_line("warnings.jsonl", {"step": step, "message": "it is."})
    folder.truncate_metrics(1)
    kept = [json.loads(line)["step"] for line in (folder.path / "warnings.jsonl").read_text().splitlines()]
    assert kept == [-1, 0]
