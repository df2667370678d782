"""A reward that is 0 or None since the first step causes one warning, with a completion and the gold answer."""

import json
from contextlib import nullcontext

import pytest
from PIL import Image

from motet.config import RewardConfig
from motet.core.task import Task
from motet.core.trajectory import Failure, Group, Sampling, Trajectory
from motet.report.empty_rewards import EmptyRewards
from motet.rewards import BoundReward, resolve, score_groups
from motet.scenarios import answer, text_to_image
from motet.testing import FakePolicy
from motet.training.rollout import rollout
from tests.runs import mapping, run_loop


def groups_of(text="It is four.", scenario=answer, **columns):
    row = {"question": "2 + 2?", "prompt": "a dog", "answer": "4", **columns}
    samplings = {"text": Sampling(), "image": Sampling()}
    return rollout(FakePolicy(writes=[text]), scenario, [Task(12, row)], 2, samplings=samplings, seed=0, step=0)


def exact(**options):
    return resolve(RewardConfig(name="exact_answer", options=options), answer.acts, ("question", "answer"))


def nothing(completions, **_):
    return [0.0] * len(completions)


def constant(value, weight=1.0, acts=("answer",)):
    return BoundReward("mine", weight, acts, lambda completions, **_: [value] * len(completions), {}, None)


def warnings_of(reward, groups=None, steps=9):
    """The warnings of each of so many steps."""
    empty, groups = EmptyRewards(), groups_of() if groups is None else groups
    return [list(empty.check("", groups, score_groups(groups, [reward]), [reward])) for _ in range(steps)]


def test_missing_answer_tags_are_explained_once():
    steps = warnings_of(exact())
    ((message,),) = [messages for messages in steps if messages]
    assert steps[4] == [message]
    assert message.startswith("Reward 'exact_answer' was 0 for all 10 trajectories of 5 steps")
    assert "(Row 12): the completion is 'It is four.', the row has answer='4'." in message
    assert "<answer> tags" in message and "rewards.options.answer_tags=false" in message


def test_tags_are_not_mentioned_if_present_or_not_required():
    (message,) = warnings_of(exact(), groups_of("<answer>5</answer>"))[4]
    assert "'<answer>5</answer>'" in message and "tags" not in message
    (message,) = warnings_of(exact(answer_tags=False), groups_of("5"))[4]
    assert "tags" not in message


def test_none_for_all_is_warnings_of():
    (message,) = warnings_of(constant(None))[4]
    assert message.startswith("Reward 'mine' was None for all 10 trajectories of 5 steps")


@pytest.mark.parametrize(
    "reward", [constant(0.5), constant(-1.0), constant(0.0, weight=0.0), constant(None, weight=0.0)]
)
def test_other_rewards_and_rewards_of_weight_0_cause_no_warning(reward):
    assert warnings_of(reward) == [[]] * 9


def test_a_reward_that_was_nonzero_once_causes_no_warning():
    empty, groups = EmptyRewards(), groups_of()
    for value in (0.0, 1.0, *[0.0] * 9):
        reward = constant(value)
        assert list(empty.check("", groups, score_groups(groups, [reward]), [reward])) == []


def test_the_count_goes_on_from_a_state_that_json_holds():
    state, groups, reward = {"counts": []}, groups_of(), constant(0.0)
    scores, steps = score_groups(groups, [reward]), []
    for _ in range(7):  # resumed after every step
        empty = EmptyRewards()
        empty.load_state_dict(json.loads(json.dumps(state)))
        steps.append(list(empty.check("a", groups, scores, [reward])))
        state = empty.state_dict()
    (message,) = steps.pop(4)
    assert "of track 'a' was 0 for all 10 trajectories of 5 steps" in message and steps == [[]] * 6


def test_steps_without_valid_rollouts_do_not_count():
    (group,) = groups_of()
    failed = [Group(group.task, tuple(Trajectory(group.task, (), Failure("scenario", "lost")) for _ in range(2)))]
    assert warnings_of(constant(0.0), failed) == [[]] * 9


def test_images_and_long_or_unprintable_values_are_shown_safely():
    groups = groups_of(scenario=text_to_image, image=Image.new("RGB", (2, 2)), solution="\x1b[31m" + "x" * 1000)
    (message,) = warnings_of(constant(0.0, acts=("image",)), groups)[4]
    assert "the completion is an image, the row has answer='4', solution='\\x1b[31mxxx" in message
    assert len(message) < 500 and "\x1b" not in message


def test_a_run_warns_and_logs_the_warning(tiny_checkpoint, tmp_path):
    rewards = [{"name": f"{__file__}:nothing", "acts": [act]} for act in ("image", "answer")]
    with pytest.warns(UserWarning, match="'nothing' was 0 for all 20 trajectories of 5 steps") as caught:
        run_loop(mapping(tiny_checkpoint, rewards=rewards, run={"steps": 7}), tmp_path / "run")
    assert len([one for one in caught if "does not affect training yet" in str(one.message)]) == 2
    lines = [json.loads(line) for line in (tmp_path / "run/warnings.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 4] and "'nothing#2'" in lines[1]["message"]


def test_a_run_that_is_resumed_before_the_warning_warns_as_an_undisturbed_one(tiny_checkpoint, tmp_path):
    rewards = [{"name": f"{__file__}:nothing", "acts": [act]} for act in ("image", "answer")]
    content = mapping(tiny_checkpoint, rewards=rewards, run={"steps": 6, "prompts_per_step": 1})
    for stop_after in (3, 5):
        with nullcontext() if stop_after == 3 else pytest.warns(UserWarning, match="all 10 trajectories of 5 steps"):
            run_loop(content, tmp_path / "run", stop_after)
    run_loop(content, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/warnings.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 4] and "'nothing#2'" in lines[1]["message"]
