"""A step's rewards: what a function is given, and what becomes of what it returns."""

import asyncio
import functools
import json
import math
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from motet.core.errors import DataError, RewardError
from motet.core.task import Task
from motet.core.trajectory import Failure, Group, Sampling, Trajectory
from motet.rewards import BoundReward, StepLog, score_groups
from motet.rewards.failures import FailurePolicy
from motet.scenarios import answer, generate_and_answer
from motet.testing import FakePolicy
from motet.training.rollout import rollout

SAMPLINGS = {"text": Sampling(), "image": Sampling()}


def roll(scenario=answer, rows=2, G=2, **columns):
    tasks = [
        Task(n, {"question": f"q{n}", "prompt": f"p{n}", **{k: v[n] for k, v in columns.items()}}) for n in range(rows)
    ]
    return rollout(FakePolicy(), scenario, tasks, G, samplings=SAMPLINGS, seed=0, step=0)


def bind(function, name="r", acts=("answer",), accepts=None, weight=1.0):
    return BoundReward(name, weight, acts, function, {}, accepts)


def returns(values):
    return bind(lambda **_: values)


def fail(groups, p, g, where="scenario"):
    """The same groups with one trajectory failed."""
    lost = Trajectory(groups[p].trajectories[g].task, (), Failure(where, "lost"))
    trajectories = [lost if n == g else t for n, t in enumerate(groups[p].trajectories)]
    return [Group(group.task, tuple(trajectories)) if n == p else group for n, group in enumerate(groups)]


def test_called_once_with_all_survivors_in_order():
    calls = []

    def reward(**arguments):
        calls.append(arguments)
        return [0.0, 1.0, 2.0]

    groups = fail(roll(level=["easy", "hard"]), 0, 1)
    scores = score_groups(groups, [bind(reward)])
    assert len(calls) == 1
    assert calls[0]["level"] == ["easy", "hard", "hard"]
    assert calls[0]["question"] == ["q0", "q1", "q1"]
    texts = [t.acts[0].text for group in groups for t in group.trajectories if t.acts]
    assert [c[0]["content"] for c in calls[0]["completions"]] == texts
    assert calls[0]["prompts"][1] == [{"role": "user", "content": "q1"}]
    assert "images" not in calls[0]
    assert [s.values["r"] for s in scores] == [(0.0, None), (1.0, 2.0)]
    assert scores[0].dropped[1].where == "scenario" and not scores[1].dropped


def test_a_reward_sees_its_own_acts_and_their_context():
    seen = {}

    def reward(name):
        return lambda prompts, completions, **_: seen.update({name: (prompts[0], completions[0])}) or [0.0] * 4

    groups = roll(generate_and_answer)
    score_groups(
        groups,
        [bind(reward("a"), "a"), bind(reward("d"), "d", ("image",)), bind(reward("b"), "b", ("image", "answer"))],
    )
    assert [m["name"] for m in seen["a"][1]] == ["answer"] and seen["a"][0][0]["content"] == "q0"
    assert [m["name"] for m in seen["d"][1]] == ["image"] and seen["d"][0][0]["content"] == "p0"
    assert [m["name"] for m in seen["b"][1]] == ["image", "answer"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_reward_that_edits_what_it_is_given_changes_nothing_for_others(is_async):
    """Chats, token ids, columns, input images and drawn ones: what the next reward and the run see is as before."""

    def edit(prompts, completions, completion_ids, completion_images, images, spec, **_):
        for n in range(2):
            prompts[n].clear()
            completion_ids[n].clear()
            completion_images[n][0].paste("white", (0, 0, 8, 8))
            images[n][0].paste("white", (0, 0, 2, 2))
            spec[n]["things"].append("more")
            completions[n][0]["content"] = "x"
        return [0.0] * 2

    async def edit_later(**arguments):
        return edit(**arguments)

    def look(**arguments):
        seen.update(arguments)
        return [0.0] * 2

    seen = {}
    source = Image.new("RGB", (2, 2), "red")
    groups = roll(generate_and_answer, rows=2, G=1, image=[source] * 2, spec=[{"things": ["a"]}] * 2)
    drawn = [group.trajectories[0].acts[0].image for group in groups]
    before = [image.tobytes() for image in drawn]
    acts = ("image", "answer")
    score_groups(groups, [bind(edit_later if is_async else edit, "edit", acts), bind(look, "look", acts)])
    assert seen["prompts"][0] and seen["completion_ids"][0] and seen["completions"][0][0]["content"] != "x"
    assert seen["spec"] == [{"things": ["a"]}] * 2
    assert [[image.tobytes() for image in row] for row in seen["completion_images"]] == [[one] for one in before]
    assert seen["images"][0][0].getpixel((0, 0)) == (255, 0, 0)
    assert groups[0].task.columns["spec"] == {"things": ["a"]} and source.getpixel((0, 0)) == (255, 0, 0)
    assert [image.tobytes() for image in drawn] == before


def test_generated_images_alone_are_copies_too():
    """Of a function that takes neither completions nor all columns."""
    groups = roll(generate_and_answer, rows=2, G=1)
    drawn = [group.trajectories[0].acts[0].image for group in groups]
    before = [image.tobytes() for image in drawn]

    def edit(completion_images):
        return [float(row[0].paste("white", (0, 0, 8, 8)) is None) for row in completion_images]

    scores = score_groups(groups, [bind(edit, acts=("image",), accepts=frozenset({"completion_images"}))])
    assert [score.values["r"] for score in scores] == [(1.0,), (1.0,)]
    assert [image.tobytes() for image in drawn] == before


def test_generations_share_the_copy_of_their_images():
    """Else a step with many generations of a group would hold each input image many times."""
    groups = roll(rows=1, G=4, image=[Image.new("RGB", (2, 2))])
    seen = []
    score_groups(groups, [bind(lambda images, **_: seen.extend(images) or [0.0] * 4)])
    assert len({id(row[0]) for row in seen}) == 1


def test_what_cannot_be_copied_is_shared():
    lock = threading.Lock()
    seen = []
    score_groups(roll(rows=1, G=1, lock=[lock]), [bind(lambda lock, **_: seen.extend(lock) or [0.0])])
    assert seen == [lock]


def test_images_are_a_list_per_row():
    image, seen = Image.new("RGB", (2, 2)), []
    groups = roll(G=1, image=[image, None])
    score_groups(groups, [bind(lambda images, **_: seen.append(images) or [0.0, 0.0])])
    assert seen == [[[image], None]]


def test_a_column_that_some_rows_lack_is_none_there():
    groups = [*roll(rows=1, G=1, extra=["e"]), *roll(rows=1, G=1)]
    seen = []
    score_groups(groups, [bind(lambda extra, **_: seen.append(extra) or [0.0, 0.0])])
    assert seen == [["e", None]]


def test_async_rewards_run_concurrently():
    """Each waits for the other: one after the other they would never end."""
    first, second = asyncio.Event(), asyncio.Event()

    async def a(**_):
        first.set()
        await asyncio.wait_for(second.wait(), 5)
        return [1.0] * 4

    async def b(**_):
        second.set()
        await asyncio.wait_for(first.wait(), 5)
        return [2.0] * 4

    scores = score_groups(roll(), [bind(a, "a"), bind(b, "b"), returns([3.0] * 4)])
    assert [scores[0].values[name][0] for name in ("a", "b", "r")] == [1.0, 2.0, 3.0]


def test_async_rewards_work_inside_a_running_loop():
    async def reward(**_):
        return [1.0] * 4

    async def notebook():
        return score_groups(roll(), [bind(reward)])

    assert asyncio.run(notebook())[0].values["r"] == (1.0, 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_drops_its_trajectory(value):
    scores = score_groups(roll(), [returns([value, 1.0, 2.0, 3.0]), bind(lambda **_: [5.0] * 4, "other")])
    assert scores[0].values["r"] == (None, 1.0)
    assert scores[0].values["other"] == (5.0, 5.0)
    assert scores[0].dropped[0].where == "reward" and "'r' returned" in scores[0].dropped[0].message
    assert list(scores[0].dropped) == [0] and not scores[1].dropped


def test_none_for_a_whole_group_does_not_apply():
    scores = score_groups(roll(), [returns([None, None, 1.0, 2.0])])
    assert scores[0].values["r"] == (None, None) and not scores[0].dropped


def test_none_for_part_of_a_group_drops_that_part():
    scores = score_groups(roll(), [returns([None, 1.0, 1.0, 2.0])])
    assert scores[0].values["r"] == (None, 1.0)
    assert list(scores[0].dropped) == [0] and "None for it but not" in scores[0].dropped[0].message


def test_a_failed_generation_is_no_part_of_the_whole_group():
    scores = score_groups(fail(roll(), 0, 0), [returns([None, 1.0, 2.0])])
    assert list(scores[0].dropped) == [0]


def test_without_valid_trajectories_nothing_is_called():
    groups = fail(fail(roll(rows=1), 0, 0), 0, 1, "policy")
    scores = score_groups(groups, [bind(lambda **_: 1 / 0)])
    assert scores[0].values["r"] == (None, None)
    assert [f.where for f in scores[0].dropped.values()] == ["scenario", "policy"]


def test_numbers_of_many_kinds():
    values = [True, 1, np.float32(0.5), torch.tensor([2.0], requires_grad=True)]
    assert score_groups(roll(), [returns(values)])[1].values["r"] == (0.5, 2.0)


@pytest.mark.parametrize(
    "make",
    [tuple, iter, np.array, torch.tensor, lambda v: torch.tensor(v).reshape(4, 1), lambda v: list(torch.tensor(v))],
)
def test_values_in_any_form_that_trl_takes(make):
    scores = score_groups(roll(), [returns(make([0.25, 0.5, 0.75, 1.0]))])
    assert [score.values["r"] for score in scores] == [(0.25, 0.5), (0.75, 1.0)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], r"'r' returned 2 values for 4 completions"),
        ([1.0] * 5, r"'r' returned 5 values for 4 completions"),
        (1.0, r"'r' returned a float, not a list of 4"),
        (None, r"'r' returned a NoneType, not a list"),
        ("1234", r"returned a str, not a list"),
        (dict.fromkeys(range(4), 1.0), r"returned a dict, not a list"),
        (torch.tensor(1.0), r"returned a Tensor, not a list"),
        ((1.0,) * 3, r"'r' returned 3 values for 4 completions"),
        ([1.0, "2", 3.0, 4.0], r"returned '2' \(str\) for completion 1, not a number"),
        ([{"score": 1.0}] * 4, r"\(dict\) for completion 0, not a number"),
        (torch.zeros(4, 2), r"\(Tensor\) for completion 0, not a number"),
        ([math.nan] * 4, r"no finite number in this step: 4 of 4 values"),
        ([math.nan, None, None, math.inf], r"no finite number in this step: 2 of 4"),
    ],
)
def test_a_broken_contract(values, message):
    with pytest.raises(RewardError, match=message):
        score_groups(roll(), [returns(values)])


def test_a_reward_that_raises_is_chained():
    def boom(**_):
        raise KeyError("solution\nmore")

    async def async_boom(**_):
        raise ValueError("first\nsecond")

    with pytest.raises(RewardError, match=r"'r' raised KeyError: .*4 completions") as caught:
        score_groups(roll(), [bind(boom)])
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(RewardError, match=r"raised ValueError: first at test_scoring.py:\d+ \(") as caught:
        score_groups(roll(), [bind(async_boom)])
    assert isinstance(caught.value.__cause__, ValueError)


def test_the_line_of_a_reward_that_raises_is_that_of_its_own_file():
    class Decodes:
        def __call__(self, **_):
            return json.loads("no JSON")  # raised in the standard library

    line = Decodes.__call__.__code__.co_firstlineno + 1
    with pytest.raises(RewardError, match=rf"line 1 column 1 \(char 0\) at test_scoring.py:{line} \(called with 4"):
        score_groups(roll(), [bind(Decodes())])
    with pytest.raises(RewardError, match=r"given\) \(called with"):  # built-in functions have no file
        score_groups(roll(), [bind(functools.partial(int, []))])


@pytest.mark.parametrize("code", [0, 3, None])
def test_sys_exit_in_a_reward_is_an_error_of_that_reward(code):
    async def later(**_):
        sys.exit(code)

    said = rf"'r' called sys.exit\({code}\) at test_scoring.py:\d+ \(called with 4 completions\)"
    for function in (lambda **_: sys.exit(code), later):
        with pytest.raises(RewardError, match=said):
            score_groups(roll(), [bind(function)])


def test_a_generator_runs_under_the_guards_of_its_reward():
    hold = threading.Event()

    def exits(**_):
        yield 1.0
        sys.exit(3)

    def fails(**_):
        yield 1.0
        raise TypeError("too few")

    def waits(**_):
        hold.wait(5)
        yield 1.0

    async def later(**_):
        return exits()

    def fine(**_):
        yield from [1.0, 2.0, 3.0, 4.0]

    stopped = r"called sys.exit\(3\)"
    for function, said in ((exits, stopped), (later, stopped), (fails, "raised TypeError: too few")):
        with pytest.raises(RewardError, match=f"'r' {said}"):
            score_groups(roll(), [bind(function)])
    with pytest.raises(RewardError, match=r"longer than its timeout of 0.1 s"):
        score_groups(roll(), [replace(bind(waits), failure=FailurePolicy(timeout=0.1))])
    hold.set()
    assert score_groups(roll(), [bind(fine)])[1].values["r"] == (3.0, 4.0)


def test_tensors_that_are_logged_become_numbers():
    def logs(completions, log_extra):
        log_extra("whole", torch.arange(4.0))
        log_extra("single", [torch.tensor(1), np.float32(2.0), "x", None])
        return [0.0] * 4

    log = StepLog()
    score_groups(roll(), [bind(logs, accepts=frozenset({"completions", "log_extra"}))], log)
    assert json.dumps(log.extra["r"]) == '{"whole": [0.0, 1.0, 2.0, 3.0], "single": [1, 2.0, "x", null]}'


def test_a_reward_that_takes_longer_than_its_timeout():
    hold = threading.Event()

    async def waits(**_):
        await asyncio.sleep(5)

    async def blocks(**_):
        hold.wait(5)

    for function in (lambda **_: hold.wait(5), waits, blocks):
        began = time.monotonic()
        with pytest.raises(RewardError, match=r"'r' took longer than its timeout of 0.1 s \(called with 4 compl"):
            score_groups(roll(), [replace(bind(function), failure=FailurePolicy(timeout=0.1))])
        assert time.monotonic() - began < 3
    hold.set()


def test_a_timeout_that_is_not_reached_changes_nothing():
    async def later(**_):
        return [2.0] * 4

    long = FailurePolicy(timeout=9.0)
    rewards = [replace(bind(lambda **_: [1.0] * 4), failure=long), replace(bind(later, "later"), failure=long)]
    assert score_groups(roll(), rewards)[0].values == {"r": (1.0, 1.0), "later": (2.0, 2.0)}


def test_a_timeout_of_the_reward_itself_is_not_called_ours():
    def gives_up(**_):
        raise TimeoutError("the database")

    async def gives_up_later(**_):
        raise TimeoutError("the database")

    for function in (gives_up, gives_up_later):
        with pytest.raises(RewardError, match="'r' raised TimeoutError: the database"):
            score_groups(roll(), [replace(bind(function), failure=FailurePolicy(timeout=5.0))])


@pytest.mark.filterwarnings("error")
def test_a_sync_failure_leaves_no_coroutine_behind():
    async def slow(**_):
        return [1.0] * 4

    with pytest.raises(RewardError):
        score_groups(roll(), [bind(slow, "slow"), bind(lambda **_: 1 / 0)])


def test_errors_of_motet_pass_through():
    def complains(**_):
        raise DataError("A gold answer is empty.", fix="fill it in.")

    with pytest.raises(DataError, match="gold answer"):
        score_groups(roll(), [bind(complains)])
