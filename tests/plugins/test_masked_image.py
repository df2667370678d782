"""A kind of act from an outside package: masked image tokens, sampled, replayed and trained; motet knows none of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import motet_masked_image  # noqa: F401
import pytest
import torch
import yaml
from motet_masked_image.act import MaskedImage
from motet_masked_image.model import NUM_TOKENS, encode
from motet_masked_image.policy import build_policy, load, num_masked
from motet_masked_image.settings import MaskedSampling
from PIL import Image

from motet.config import parse_recipe, to_yaml
from motet.core.act_kinds import act_kind, kinds_making
from motet.core.conversation import user
from motet.core.errors import ConfigError
from motet.core.protocols import Request, TrainablePolicy
from motet.core.task import Task
from motet.scenarios import resolve_scenario
from motet.testing import check_policy
from motet.training.losses import resolve_loss
from motet.training.rollout import encode_demonstrations, rollout
from motet.training.setup import sampling_params
from tests.plugins.installing import install

HERE = Path(__file__).parent
KIND = "masked_image"
RECIPE = {
    "policy": {"path": "motet_masked_image.policy:build_policy"},
    "scenario": "text_to_image",
    "data": {"source": "rows.jsonl"},
    "rewards": [{"name": "share_of_named_colour"}],
    "algorithm": {"num_generations": 8},
    "sampling": {KIND: {"num_steps": 3, "order_noise": 0.5}},
    "optimizer": {"learning_rate": 0.003},
    "run": {"steps": 30, "prompts_per_step": 4},
}


def acts_of(policy, sampling, keys=range(5)) -> list[MaskedImage]:
    return policy.act([Request(KIND, "image", user(f"prompt {n}"), (0, n)) for n in keys], sampling)


@pytest.mark.parametrize("changes", [{}, {"temperature": 0.7, "num_steps": 5, "schedule": "linear"}, {"num_steps": 1}])
def test_sampled_log_probs_are_replayed(changes) -> None:
    policy, sampling = build_policy(), act_kind(KIND).sampling(**changes)
    acts = acts_of(policy, sampling)
    for act in acts:
        counts = [num_masked(n, sampling) - num_masked(n + 1, sampling) for n in range(sampling.num_steps)]
        assert act.steps.bincount(minlength=sampling.num_steps).tolist() == counts and sum(counts) == NUM_TOKENS
        assert torch.equal(encode(act.image), act.ids)
    replays = policy.replay(acts, ("entropy",))
    for act, replay in zip(acts, replays, strict=True):
        torch.testing.assert_close(replay.log_probs, act.log_probs, rtol=0, atol=1e-5)
        assert replay.log_probs.requires_grad and replay.extras["entropy"].shape == (NUM_TOKENS,)


def test_it_keeps_the_contract_of_a_policy() -> None:
    check_policy(build_policy(), load=load)


def test_noise_follows_the_key_and_not_the_batch() -> None:
    policy, sampling = build_policy(), act_kind(KIND).sampling()
    together, alone = acts_of(policy, sampling), acts_of(policy, sampling, keys=[3])
    assert torch.equal(together[3].ids, alone[0].ids) and torch.equal(together[3].steps, alone[0].steps)


def test_a_log_prob_depends_on_the_tokens_of_earlier_steps_alone() -> None:
    policy, sampling = build_policy(), act_kind(KIND).sampling(num_steps=2)
    (act,) = acts_of(policy, sampling, keys=[0])
    first = act.steps == 0
    other = MaskedImage(**{**vars(act), "ids": torch.where(first, act.ids, (act.ids + 1) % 8)})
    before, after = (policy.replay([one])[0].log_probs for one in (act, other))
    assert torch.equal(before[first], after[first]) and not torch.isclose(before[~first], after[~first]).any()


def test_a_scenario_that_asks_for_an_image_is_performed() -> None:
    samplings = sampling_params(parse_recipe(RECIPE))
    assert isinstance(build_policy(), TrainablePolicy) and kinds_making("image", {KIND}) == [KIND]
    (group,) = rollout(
        build_policy(), resolve_scenario("text_to_image"), [Task(0, {"prompt": "red"})], 2,
        samplings=samplings, seed=0, step=0,
    )  # fmt: skip
    acts = [act for trajectory in group.trajectories for act in trajectory.acts]
    assert [act.kind for act in acts] == [KIND, KIND]
    assert acts[0].sampling == MaskedSampling(num_steps=3, order_noise=0.5)
    assert isinstance(group.trajectories[0].completion[0]["content"][0]["image"], Image.Image)


def test_images_of_a_dataset_become_acts() -> None:
    rows = [Task(0, {"prompt": "red", "target": Image.new("RGB", (8, 8), "red")})]
    targets = {"image": "target"}
    (trajectory,) = encode_demonstrations(build_policy(), resolve_scenario("text_to_image"), rows, targets)
    (act,) = trajectory.acts
    assert isinstance(act, MaskedImage) and act.ids.tolist() == [0] * NUM_TOKENS
    assert set(act.steps.tolist()) == set(range(act.sampling.num_steps)) and act.log_probs is None


def test_interactive_use_and_saving(tmp_path) -> None:
    policy = build_policy()
    with torch.no_grad():
        policy.model.head.bias += 1.0
    policy.save(tmp_path)
    assert torch.equal(load(tmp_path).model.head.bias, policy.model.head.bias)
    assert [act.kind for act in policy.generate_images("red", n=2, num_steps=2)] == [KIND, KIND]
    with pytest.raises(ConfigError, match="does not make texts"):
        policy.generate_text("hello")


def test_a_recipe_sets_it() -> None:
    recipe = parse_recipe(RECIPE)
    assert parse_recipe(yaml.safe_load(to_yaml(recipe))) == recipe and "order_noise: 0.5" in to_yaml(recipe)
    changed = parse_recipe(RECIPE, [f"sampling.{KIND}.num_steps=6", f"algorithm.per_kind.{KIND}.beta=0.5"])
    assert sampling_params(changed)[KIND].num_steps == 6
    assert resolve_loss(recipe.algorithm, KIND).settings.epsilon == 0.1  # of its record
    assert resolve_loss(changed.algorithm, KIND).beta == 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"sampling.{KIND}.num_step=2", f"did you mean 'sampling.{KIND}.num_steps'"),
        (f"sampling.{KIND}.schedule=cosin", f"sampling.{KIND}.schedule: 'cosin' does not fit; expected one of cosine"),
        (f"sampling.{KIND}.num_steps=1", f"sampling.{KIND}.order_noise: has no effect"),
        ("sampling.masked_imag.num_steps=1", "sampling.masked_imag: the key is unknown"),
        ("algorithm.per_kind.masked_imag.beta=1", f"did you mean 'algorithm.per_kind.{KIND}'"),
    ],
)
def test_its_section_of_a_recipe_is_checked(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(RECIPE, [override])
    assert message in str(caught.value)


def test_an_installed_package_trains_it(tmp_path) -> None:
    """`motet train` finds the package by its entry point; the share of the right colour rises from 1/8."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"prompt": name}) + "\n" for name in ("red", "blue") * 4))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    path = [*install(HERE / "masked_image", tmp_path / "site"), os.environ.get("PYTHONPATH", ""), str(HERE.parents[1])]
    subprocess.run(
        [sys.executable, "-m", "motet", "train", "recipe.yaml", "--output", "run"], cwd=tmp_path, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}, capture_output=True,
    )  # fmt: skip
    rewards = [json.loads(line)["reward"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert fmean(rewards[:3]) < 0.2 < 0.8 < fmean(rewards[-5:])
    assert list((tmp_path / "run" / "samples").glob("*.png"))
