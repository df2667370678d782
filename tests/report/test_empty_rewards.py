"""A reward that is 0 or None from the first step on is said once, with a completion and the gold answer."""

import json

import pytest
from PIL import Image

from motet.config import RewardConfig
from motet.core.task import Task
from motet.core.trajectory import Failure, Group, Sampling, Trajectory
from motet.report.empty_rewards import EmptyRewards
from motet.rewards import BoundReward, resolve, score_groups
from motet.scenarios import answer, draw
from motet.testing import FakePolicy
from motet.training.rollout import rollout
from tests.runs import mapping, run_loop


def roll(text="It is four.", scenario=answer, **columns):
    row = {"question": "2 + 2?", "prompt": "a dog", "answer": "4", **columns}
    samplings = {"text": Sampling(), "image": Sampling()}
    return rollout(FakePolicy(writes=[text]), scenario, [Task(12, row)], 2, samplings=samplings, seed=0, step=0)


def exact(**options):
    return resolve(RewardConfig(name="exact_answer", options=options), answer.acts, ("question", "answer"))


def constant(value, weight=1.0, acts=("answer",)):
    return BoundReward("mine", weight, acts, lambda completions, **_: [value] * len(completions), {}, None)


def said(reward, groups=None, steps=9):
    """What is said in each of so many steps."""
    empty, groups = EmptyRewards(), roll() if groups is None else groups
    return [list(empty.look("", groups, score_groups(groups, [reward]), [reward])) for _ in range(steps)]


def test_an_answer_without_tags_is_explained_once():
    rounds = said(exact())
    ((message,),) = [found for found in rounds if found]
    assert rounds[4] == [message]
    assert message == (
        "Reward 'exact_answer' was 0 for all 10 trajectories of 5 steps, so nothing is learned from it yet. For "
        "example (row 12): the completion is 'It is four.', the row has answer='4'. It reads only what stands in "
        "<answer> tags: ask for them in the question, or set rewards.options.tagged=false."
    )


def test_tags_are_not_blamed_where_they_are_not_at_fault():
    (message,) = said(exact(), roll("<answer>5</answer>"))[4]
    assert "'<answer>5</answer>'" in message and "tags" not in message
    (message,) = said(exact(tagged=False), roll("5"))[4]
    assert "tags" not in message


def test_none_for_all_is_said():
    (message,) = said(constant(None))[4]
    assert message.startswith("Reward 'mine' was None for all 10 trajectories of 5 steps")


@pytest.mark.parametrize(
    "reward", [constant(0.5), constant(-1.0), constant(0.0, weight=0.0), constant(None, weight=0.0)]
)
def test_other_rewards_and_watched_ones_are_left_alone(reward):
    assert said(reward) == [[]] * 9


def test_a_reward_that_gave_something_once_is_left_alone():
    empty, groups = EmptyRewards(), roll()
    for value in (0.0, 1.0, *[0.0] * 9):
        reward = constant(value)
        assert list(empty.look("", groups, score_groups(groups, [reward]), [reward])) == []


def test_steps_without_a_survivor_do_not_count():
    (group,) = roll()
    lost = [Group(group.task, tuple(Trajectory(group.task, (), Failure("scenario", "lost")) for _ in range(2)))]
    assert said(constant(0.0), lost) == [[]] * 9


def test_pictures_and_long_or_odd_values_are_shown_safely():
    groups = roll(scenario=draw, image=Image.new("RGB", (2, 2)), solution="\x1b[31m" + "x" * 1000)
    (message,) = said(constant(0.0, acts=("drawing",)), groups)[4]
    assert "the completion is a picture, the row has answer='4', solution='\\x1b[31mxxx" in message
    assert len(message) < 500 and "\x1b" not in message


def test_a_run_says_it_and_keeps_it(tiny_checkpoint, tmp_path):
    (tmp_path / "zero.py").write_text("def zero(completions, **_): return [0.0] * len(completions)")
    rewards = [{"name": f"{tmp_path}/zero.py:zero", "acts": [act]} for act in ("drawing", "answer")]
    with pytest.warns(UserWarning, match="'zero' was 0 for all 20 trajectories of 5 steps") as caught:
        run_loop(mapping(tiny_checkpoint, rewards=rewards, run={"steps": 7}), tmp_path / "run")
    assert len([one for one in caught if "learned from it" in str(one.message)]) == 2
    lines = [json.loads(line) for line in (tmp_path / "run/warnings.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 4] and "'zero#2'" in lines[1]["message"]
