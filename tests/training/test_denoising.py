"""Denoising steps are actions like any other: the same code samples, replays, credits, clips and learns from them."""

import pytest
import torch

from motet.config import OptimizerConfig, RewardConfig, parse_recipe
from motet.core.protocols import Replay, TrainablePolicy
from motet.core.task import Task
from motet.core.trajectory import Sampling
from motet.numerics.kl import gaussian_kl
from motet.rewards import score_groups
from motet.rewards.resolving import resolve
from motet.scenarios import GenerateImage, GenerateText, scenario, text_to_image
from motet.training.advantages import assign_advantages, check_reward_assignment
from motet.training.batches import StepBatch
from motet.training.frozen_replays import replay_frozen
from motet.training.optimizer_step import PolicyOptimizer
from motet.training.policy_update import update
from motet.training.rollout import rollout
from tests.flow_expert import FlowExpert
from tests.losses import algorithm, kind_config, losses
from tests.runs import TrainableFakePolicy

STEPS = Sampling(num_steps=5, noise_level=0.7)
TARGET = 0.8


def bright(completions, **columns):
    """How near the drawing's mean brightness comes to the target."""
    images = [c[0]["content"][0]["image"] for c in completions]
    return [-abs(p.convert("L").resize((1, 1)).getpixel((0, 0)) / 255 - TARGET) for p in images]


def tasks(P):
    return [Task(n, {"prompt": f"picture {n}"}) for n in range(P)]


def played(policy, P=2, G=4, step=0, made=text_to_image, samplings=None):
    return rollout(policy, made, tasks(P), G, samplings=samplings or {"denoising": STEPS}, seed=3, step=step)


def acts_of(groups):
    return [act for group in groups for t in group.trajectories for act in t.acts]


def reward(**settings):
    config = RewardConfig(name=f"{__file__}:bright", **settings)
    return resolve(config, text_to_image.acts, ("prompt",))


def test_the_flow_expert_is_a_policy():
    assert isinstance(FlowExpert(), TrainablePolicy)


def test_an_act_stores_what_its_replay_needs():
    (act,) = acts_of(played(FlowExpert(), P=1, G=1))
    assert act.kind == "denoising" and act.states.shape == (6, 1, 4, 4) and act.states.dtype == torch.float32
    assert act.times.tolist() == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])
    assert act.stochastic == (True, True, True, True, False) and act.num_actions == 4 == len(act.log_probs)


def test_a_step_is_that_of_the_paper():
    """The first two steps by hand, from the stored states."""
    policy = FlowExpert()
    (act,) = acts_of(played(policy, P=1, G=1))
    for step, (sigma, after, safe) in enumerate([(1.0, 0.8, 0.8), (0.8, 0.6, 0.8)]):
        s, D = 0.7 * (sigma / (1 - safe)) ** 0.5, after - sigma
        x = act.states[step]
        v = policy._velocity(x[None], torch.tensor([sigma]), [act.encoding])[0].detach()
        mean = x * (1 + s**2 / (2 * sigma) * D) + v * (1 + s**2 * (1 - sigma) / (2 * sigma)) * D
        step_density = torch.distributions.Normal(mean, s * (-D) ** 0.5).log_prob(act.states[step + 1]).mean()
        assert float(act.log_probs[step]) == pytest.approx(float(step_density), abs=1e-5)


def test_replay_equals_sampling_and_the_ratio_is_one():
    policy = FlowExpert()
    acts = acts_of(played(policy))
    for act, replay in zip(acts, policy.replay(acts), strict=True):
        torch.testing.assert_close(replay.log_probs, act.log_probs, rtol=0, atol=2e-6)
    config = algorithm(per_kind={"denoising": kind_config(epsilon=1e-4)})
    batch = StepBatch(acts, [1.0] * len(acts), [Replay(act.log_probs) for act in acts])
    stats = PolicyOptimizer(policy, OptimizerConfig(), 1).step(batch, losses(config))
    assert stats["denoising/ratio_max"] == pytest.approx(1.0, abs=5e-6)  # well inside the clip range of 1e-4
    assert stats["denoising/clip_fraction"] == 0 and "denoising/entropy" not in stats


def test_the_gradient_is_that_of_finite_differences():
    """Loss with ratios off policy, and the exact KL to a reference, in float64."""
    policy = FlowExpert(width=4)
    acts = acts_of(played(policy, P=1, G=3))
    policy.freeze_reference()
    policy = policy.double()
    policy._start = {name: value.double() for name, value in policy._start.items()}
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, dtype=torch.float64)
    with policy.reference():
        reference = replay_frozen(policy, acts, 10**9, ("mean", "std"))
    config = algorithm(epsilon=None, beta=0.3)
    batch = StepBatch(acts, [1.0, -0.5, 2.0], [Replay(act.log_probs) for act in acts], reference)

    def step():
        learner = PolicyOptimizer(policy, OptimizerConfig(learning_rate=1e-30, max_grad_norm=1e9), 1)
        return learner.step(batch, losses(config))["loss"]

    step()
    for name, parameter in policy.trainable().items():
        gradient, flat = parameter.grad.clone().flatten(), parameter.data.view(-1)
        for place in range(0, len(flat), max(1, len(flat) // 3)):
            before, values = flat[place].item(), []
            for change in (1e-6, -1e-6):
                flat[place] = before + change
                values.append(step())
            flat[place] = before
            assert float(gradient[place]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-8), name
        assert gradient.abs().max() > 1e-6


def test_the_kl_of_two_gaussians():
    mean, other, std = torch.randn(3, 2, 2), torch.randn(3, 2, 2), torch.tensor([0.5, 1.0, 2.0])
    normal = torch.distributions.Normal
    wide = std.view(3, 1, 1)
    exact = torch.distributions.kl_divergence(normal(mean, wide), normal(other, wide)).mean(dim=(1, 2))
    torch.testing.assert_close(gaussian_kl(mean, other, std), exact)


RECIPE = {
    "policy": {"path": "none"},
    "scenario": "text_to_image",
    "rewards": [{"name": f"{__file__}:bright"}],
    "algorithm": {
        "num_generations": 8,
        "per_kind": {"denoising": {"loss": {"name": "grpo", "epsilon": 1e-4}, "beta": 0.01}},
    },
    "optimizer": {"learning_rate": 0.02},
    "run": {"steps": 40, "prompts_per_step": 2},
}


def one_step(policy, learner, recipe, step):
    """The loop's sentence."""
    groups = played(policy, P=2, G=8, step=step)
    scores = score_groups(groups, [reward()])
    credit = assign_advantages(groups, scores, [reward()], recipe.algorithm)
    stats = update(policy, learner, groups, credit.acts, recipe, step)
    values = [value for score in scores for value in score.values["bright"]]
    return sum(values) / len(values), stats


def test_clipping_of_denoising_steps_is_their_own():
    """With two passes over a rollout, a step moves the ratios far beyond 1e-4, though not beyond 0.2."""
    recipe = parse_recipe(RECIPE, ["algorithm.num_iterations=2", "optimizer.learning_rate=0.001"])
    policy = FlowExpert()
    policy.freeze_reference()
    _, stats = one_step(policy, PolicyOptimizer(policy, recipe.optimizer, 2), recipe, 0)
    assert stats["denoising/clip_fraction"] > 0.1 and stats["denoising/ratio_max"] < 1.05
    wide = parse_recipe(RECIPE, ["algorithm.num_iterations=2", "algorithm.per_kind.denoising.loss.epsilon=0.2"])
    policy = FlowExpert()
    policy.freeze_reference()
    _, stats = one_step(policy, PolicyOptimizer(policy, wide.optimizer, 2), wide, 0)
    assert stats["denoising/clip_fraction"] == 0


def test_a_flow_expert_learns():
    """From mid-grey towards the target: scenario, rollout, rewards, credit and learner as in any run."""
    recipe, policy = parse_recipe(RECIPE), FlowExpert()
    check_reward_assignment(text_to_image, [reward()])
    policy.freeze_reference()
    learner = PolicyOptimizer(policy, recipe.optimizer, recipe.run.steps)
    curve = []
    for step in range(recipe.run.steps):
        mean, stats = one_step(policy, learner, recipe, step)
        curve.append(mean)
        assert stats["denoising/ratio_max"] == pytest.approx(1.0, abs=1e-5)
    assert stats["denoising/kl"] > 0.001
    first, last = sum(curve[:5]) / 5, sum(curve[-5:]) / 5
    assert first < -0.25 and last > -0.1, (first, last)


# --- three kinds of act in one optimizer step


class Choir:
    """Several policies as one: requests and acts go by kind to the one that performs it."""

    autocast = rollout_autocast = None

    def __init__(self, **members):
        self.members, self.version = members, 0
        self.kinds = frozenset(kind for member in members.values() for kind in member.kinds)

    def of(self, kind):
        return next(member for member in self.members.values() if kind in member.kinds)

    def act(self, requests, sampling):
        return self.of(requests[0].kind).act(requests, sampling)

    def encode_targets(self, requests, targets):
        return self.of(requests[0].kind).encode_targets(requests, targets)

    def replay(self, acts, needs=()):
        return [self.of(act.kind).replay([act], needs)[0] for act in acts]

    def num_tokens(self, act):
        return self.of(act.kind).num_tokens(act)

    def trainable(self):
        return {f"{n}.{k}": p for n, member in self.members.items() for k, p in member.trainable().items()}

    def save(self, folder):
        raise NotImplementedError

    def freeze_reference(self):
        for member in self.members.values():
            member.freeze_reference()

    def reference(self):
        raise NotImplementedError


@scenario("trio", acts={"thought": "text", "tokens": "image", "steps": "denoising"}, columns=("prompt",))
def trio(task):
    yield (
        GenerateText(task.prompt, name="thought"),
        GenerateImage(task.prompt, name="tokens"),
        GenerateImage(task.prompt, name="steps"),
    )


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_a_step_over_three_kinds_is_the_sum_of_its_parts(loss_type):
    """Each kind has its own denominator: a picture of many steps does not dilute the words."""

    def members():
        choir = Choir(janus=TrainableFakePolicy(writes=["a", "bcd", "ef"]), flow=FlowExpert())
        samplings = {"text": Sampling(max_tokens=9), "image": Sampling(), "denoising": STEPS}
        groups = played(choir, made=trio, samplings=samplings)
        return choir, acts_of(groups)

    config = algorithm(
        loss=loss_type, entropy_bonus=0.01,
        per_kind={"denoising": kind_config(epsilon=1e-4, weight=2.0)},
    )  # fmt: skip
    optimizer = OptimizerConfig(max_grad_norm=1e9)

    def run(kinds):
        choir, acts = members()
        chosen = [n for n, act in enumerate(acts) if act.kind in kinds]
        batch = StepBatch([acts[n] for n in chosen], [(-1.5) ** (n % 4) for n in chosen])
        stats = PolicyOptimizer(choir, optimizer, 1).step(batch, losses(config))
        return stats, {name: p.grad for name, p in choir.trainable().items() if p.grad is not None}

    together, gradients = run(("text", "image", "denoising"))
    parts = {kind: run((kind,)) for kind in ("text", "image", "denoising")}
    assert together["loss"] == pytest.approx(sum(stats["loss"] for stats, _ in parts.values()), rel=1e-5)
    for kind, (stats, own) in parts.items():
        assert together[f"{kind}/loss"] == pytest.approx(stats["loss"], rel=1e-5)
        assert float(max(g.abs().max() for g in own.values())) > 1e-6
        for name, gradient in own.items():
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-5, atol=1e-8)
    assert set(gradients) == set().union(*(own for _, own in parts.values()))


def test_a_reference_replay_offers_what_the_kl_needs():
    policy = FlowExpert()
    acts = acts_of(played(policy, P=1, G=2))
    policy.freeze_reference()
    made = losses(algorithm(beta=0.1))
    needs = made["denoising"].needs(with_reference=True)
    assert set(needs.current) == {"entropy", "mean", "std"} and set(needs.reference) == {"mean", "std"}
    reference = replay_frozen(policy, acts, 10**9, needs.reference)
    stats = PolicyOptimizer(policy, OptimizerConfig(), 1).step(StepBatch(acts, [0.0] * 2, None, reference), made)
    assert stats["denoising/kl"] == 0.0
    assert isinstance(policy.replay(acts[:1], ("mean",))[0], Replay)
