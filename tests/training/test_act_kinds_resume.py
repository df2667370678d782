"""For every kind of act, alone and in one trajectory: interrupted and resumed is uninterrupted, to the bit."""

import pytest

from tests.distributed.mixed_run import TRAIN, mixed_policy
from tests.runs import REWARDS, mapping, metrics, run_loop
from tests.training.test_trainer import assert_same_run

REDDISH, SPACIOUS = {"name": f"{REWARDS}reddish"}, {"name": f"{REWARDS}spacious"}


@pytest.fixture(scope="module")
def mixed_checkpoint(tiny_checkpoint, tmp_path_factory):
    """A policy of all three kinds: text, the tokens of an image, and a denoising trajectory over them."""
    folder = tmp_path_factory.mktemp("mixed") / "policy"
    mixed_policy(tiny_checkpoint).save(folder)
    return folder


@pytest.mark.parametrize(
    ("policy", "scenario", "rewards", "kinds"),
    [
        ("janus", "answer", [SPACIOUS], {"text"}),
        ("janus", "text_to_image", [REDDISH], {"image"}),
        ("mixed", {"name": "tokens_then_flow", "train_tokens": False}, [REDDISH], {"denoising"}),
        ("mixed", "think_tokens_then_flow", [REDDISH, SPACIOUS], {"text", "image", "denoising"}),
    ],
    ids=["text", "image tokens", "denoising steps", "all in one trajectory"],
)
def test_a_resumed_run_is_the_uninterrupted_one(
    policy, scenario, rewards, kinds, tiny_checkpoint, mixed_checkpoint, tmp_path
):
    where = {"path": str(tiny_checkpoint if policy == "janus" else mixed_checkpoint)}
    if policy == "mixed":
        where["train"] = TRAIN
    recipe = mapping(
        tiny_checkpoint,
        policy=where,
        scenario=scenario,
        rewards=rewards,
        algorithm={"advantage_assignment": "joint", "beta": 0.05},
        sampling={"text": {"max_tokens": 4}, "denoising": {"num_steps": 4, "noise_level": 0.7}},
        run={"steps": 2, "prompts_per_step": 1, "threads": 1, "log_samples_every": 9},
    )
    run_loop(recipe, tmp_path / "whole")
    run_loop(recipe, tmp_path / "parts", stop_after=1)
    run_loop(recipe, tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    lines = metrics(tmp_path / "whole")
    assert {key.split("/")[0] for key in lines[0] if key.endswith("/ratio")} == kinds
    assert all(line["grad_norm"] > 0 for line in lines)
