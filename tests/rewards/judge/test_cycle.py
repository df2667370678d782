"""The bidirectional cycle: its terms, its captioners, and whole steps through `score_groups` on a tiny Janus."""

import math

import pytest
import torch

from motet.config import RewardConfig
from motet.core.conversation import user
from motet.core.errors import ConfigError, DataError, RewardError
from motet.core.protocols import Request
from motet.core.task import Task
from motet.core.trajectory import Group, Sampling, Trajectory
from motet.rewards import bind_policy, resolve, score_groups
from motet.rewards.captions.tuples import tuple_f1
from motet.rewards.image.perceptual import mse
from motet.rewards.image.pixels import to_pixels
from motet.rewards.judge.cycle import Cycle
from motet.testing import FakePolicy
from tests.rewards.judges import chat_server, image, save_bert, save_blip, save_resnet, shows

PROMPTS = ["a red dog", "two blue cats on a bus"]
REAL, DRAWN = [image("red"), image("blue")], [image("green"), image((10, 20, 250))]


def bound(policy=None, columns=("prompt", "image"), **options):
    config = RewardConfig(name="cycle", options={"visual": "mse", "weights": "current", "side": 16, **options})
    (reward,) = bind_policy([resolve(config, {"image": "image"}, columns)], policy or FakePolicy())
    return reward


def call(reward, drawn=DRAWN, prompts=PROMPTS, real=REAL):
    return reward(prompts=[], completions=shows(*drawn), prompt=prompts, images=[[r] for r in real])


def visual_by_hand():
    cpu = torch.device("cpu")
    return (1 - mse(to_pixels(REAL, 16, cpu), to_pixels(DRAWN, 16, cpu))).tolist()


def test_it_is_the_mean_of_both_terms():
    policy = FakePolicy(writes=lambda request: "a dog")
    text = [tuple_f1("a dog", prompt) for prompt in PROMPTS]
    wanted = [(v + t) / 2 for v, t in zip(visual_by_hand(), text, strict=True)]
    assert call(bound(policy)) == pytest.approx(wanted, abs=1e-6)
    assert call(bound(policy, text="none")) == pytest.approx(visual_by_hand(), abs=1e-6)
    assert call(bound(policy, visual="none")) == pytest.approx(text)
    assert 0 < text[0] < 1


def test_a_perfect_cycle_is_one():
    policy = FakePolicy(writes=lambda request: "a red dog")
    assert call(bound(policy), [REAL[0]] * 2, ["a red dog"] * 2, [REAL[0]] * 2) == pytest.approx([1.0, 1.0])


def test_the_policy_is_asked_once_for_all_about_the_images():
    policy = FakePolicy(writes=lambda request: "a dog")
    call(bound(policy, question="What is it?"))
    ((kind, requests),) = policy.calls
    assert kind == "text" and [r.context.messages[0].parts[0].image for r in requests] == DRAWN
    assert {r.context.text for r in requests} == {"What is it?"}


def test_blip_bertscore_and_lpips_together(tmp_path):
    blip, bert = str(save_blip(tmp_path / "blip")), str(save_bert(tmp_path / "bert"))
    backbone, weights = save_resnet(tmp_path / "resnet")
    options = {
        "captioner": "blip", "captioner_path": blip, "text": "bertscore", "encoder": bert, "visual": "lpips",
        "backbone": str(backbone), "backbone_weights": str(weights), "max_tokens": 5, "side": 32,
    }  # fmt: skip
    reward = bound(**options)
    prompts = ["a red dog", "two blue cat on a bus"]
    whole = call(reward, prompts=prompts)
    parts = [call(bound(**options | {off: "none"}), prompts=prompts) for off in ("text", "visual")]
    assert whole == pytest.approx([(a + b) / 2 for a, b in zip(*parts, strict=True)], abs=1e-5)
    assert all(0 < value < 1 for value in whole) and not reward.uses_reference


def test_an_endpoint_describes_and_what_fails_is_nan():
    with chat_server() as server:
        left = ["a red dog", 400]
        server.reply = lambda request: left.pop(0)
        endpoint = {"base_url": server.url, "model": "m", "retries": 0, "concurrency": 1}
        scores = call(bound(captioner="endpoint", endpoint=endpoint, visual="none"))
    assert scores[0] == 1.0 and math.isnan(scores[1])
    assert server.seen[0][1]["messages"][0]["content"][1]["text"] == "Describe the picture in one sentence."


def test_a_row_without_a_prompt_gets_none_and_one_without_an_image_is_an_error():
    reward = bound(FakePolicy(writes=["x"]))
    assert call(reward, prompts=[None, None]) == [None, None]
    with pytest.raises(DataError, match="no real image"):
        reward(prompts=[], completions=shows(DRAWN[0]), prompt=["x"], images=[None])


def test_the_real_image_is_needed_only_by_the_visual_term():
    with pytest.raises(RewardError, match="'cycle' needs column 'images'"):
        bound(columns=("prompt",))
    policy = FakePolicy(writes=["a red dog"])
    assert (
        bound(policy, columns=("prompt",), visual="none")(prompts=[], completions=shows(*DRAWN), prompt=PROMPTS)[0] == 1
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captioner": "blipp"}, "captioner='blipp' of 'cycle' must be one of policy, blip, endpoint"),
        ({"captioner": "blip"}, "captioner_path=None of 'cycle' is not a path of a BLIP captioner"),
        ({"captioner": "endpoint"}, "endpoint=None of 'cycle' is not a mapping"),
        ({"text": "bertscore"}, "encoder=None of 'cycle' is not a path of a text encoder"),
        ({"text": "cider"}, "text='cider'"),
        ({"text": "none", "visual": "none"}, "leave no term"),
        ({"question": ""}, "question='' of 'cycle' is not a text"),
        ({"weights": "old"}, "weights='old'"),
        ({"side": 4}, "side=4"),
    ],
)
def test_wrong_options_raise(options, message):
    with pytest.raises(ConfigError, match=message):
        Cycle(**{"visual": "mse", **options})


def test_an_unknown_option_raises_when_the_recipe_is_loaded():
    with pytest.raises(ConfigError, match=r"'cycle' has 'captionner'.*Did you mean 'captioner'"):
        bound(captionner="blip")


def test_a_step_of_a_tiny_janus_is_scored_whole(janus):
    """Images of the policy, captions with its reference weights, and token matching."""
    janus.freeze_reference()
    acts, groups = ("image",), []
    for p, prompt in enumerate(["two red circles", "a blue square"]):
        context, task = user(prompt), Task(p, {"prompt": prompt, "image": image("red")})
        requests = [Request("image", "image", context, (0, p, g)) for g in range(2)]
        drawn = janus.act(requests, Sampling())
        groups.append(Group(task, tuple(Trajectory(task.for_generation(g), (act,)) for g, act in enumerate(drawn))))
    columns = ("prompt", "image")
    configs = [
        RewardConfig(name="cycle", options={"visual": "ssim", "side": 16, "max_tokens": 8}, acts=acts),
        RewardConfig(name="token_matching", acts=acts),
    ]
    rewards = bind_policy([resolve(c, {"image": "image"}, columns) for c in configs], janus)
    before = janus.version
    scores = score_groups(groups, rewards)
    assert janus.version == before and not any(s.dropped for s in scores)
    for score in scores:
        assert all(0 <= value <= 1 for value in score.values["cycle"])
        assert all(-1 <= value <= 1 for value in score.values["token_matching"])
        assert score.values["token_matching"][0] != score.values["token_matching"][1]
    assert score_groups(groups, rewards)[0].values == scores[0].values


def test_only_a_policy_that_describes_by_its_start_needs_a_reference():
    assert Cycle(visual="mse").uses_reference
    assert not Cycle(visual="mse", weights="current").uses_reference
    assert not Cycle(visual="mse", text="none").uses_reference
    assert not Cycle(visual="mse", captioner="blip", captioner_path="x").uses_reference
