"""What only denoising acts have: guidance by branches, windows, flow matching, GRPO-Guard, NFT, velocity-MSE."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from motet.config import OptimizerConfig, parse_recipe
from motet.core.conversation import user
from motet.core.errors import ConfigError, NumericsError
from motet.core.protocols import Replay, Request
from motet.core.trajectory import ActWithAdvantage, Sampling
from motet.numerics.flow.steps import log_density, sde_step
from motet.policies.diffusion import guidance_branches, renoise, replay_log_probs, sample_latents
from motet.policies.diffusion.guidance import guided_velocity
from motet.training.batches import StepBatch
from motet.training.frozen_replays import replay_frozen
from motet.training.losses.nft import NFT, NFTSettings, nft_loss, optimality_prob
from motet.training.optimizer_step import PolicyOptimizer
from motet.training.policy_update import update
from motet.training.setup import sampling_params
from tests.flow_expert import FlowExpert, to_latent
from tests.losses import algorithm, losses, supervised
from tests.training.test_denoising import RECIPE, STEPS, acts_of, played

SHAPE = (1, 4, 4)


def constant(x, sigma, conditions):
    """A network whose velocity is its condition."""
    return torch.stack([torch.full_like(row, value) for row, value in zip(x, conditions, strict=True)])


# --- guidance


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({}, (1.0,)),
        ({"guidance": "guided", "guidance_scale": 3.0}, (3.0, -2.0)),
        ({"guidance": "guided", "guidance_scale": 3.0, "image_guidance_scale": 1.5}, (3.0, -1.5, -0.5)),
        ({"guidance": "guided", "guidance_scale": 3.0, "image_guidance_scale": 1.0}, (3.0, -2.0)),
    ],
)
def test_weights_of_branches(settings, weights):
    """`u + i (p - u) + s (c - p)`, by hand; a branch of weight 0 is not computed."""
    edits = len(weights) == 3 or settings.get("image_guidance_scale") == 1.0
    branches = guidance_branches(Sampling(**settings), "c", "u", "p" if edits else None)
    assert branches.weights == pytest.approx(weights) and sum(branches.weights) == pytest.approx(1.0)
    names = {(1.0,): "c", (3.0, -2.0): "cp" if edits else "cu"}.get(weights, "cpu")
    assert "".join(branches.conditions) == names


def test_a_guided_velocity_is_the_weighted_sum():
    x, sigma = torch.zeros(2, *SHAPE), torch.ones(2)
    guided = guidance_branches(Sampling(guidance="guided", guidance_scale=3.0), 2.0, 1.0)
    alone = guidance_branches(Sampling(), 5.0)
    velocity = guided_velocity(constant, x, sigma, [guided, alone])
    assert velocity[0].unique().item() == pytest.approx(3 * 2.0 - 2 * 1.0)
    assert velocity[1].unique().item() == pytest.approx(5.0)


def test_a_drawing_along_the_ode_replays_to_nothing():
    """It has no action: neither alone nor beside one that has is there a velocity to ask for."""
    policy = FlowExpert()
    ode, sde = (
        acts_of(played(policy, P=1, G=1, samplings={"denoising": replace(STEPS, temperature=value)}))[0]
        for value in (0.0, 1.0)
    )
    for acts in ([ode], [ode, sde]):
        branches = [guidance_branches(Sampling(), act.encoding) for act in acts]
        replays = replay_log_probs(policy._velocity, acts, branches, torch.device("cpu"), ("mean",))
        assert [len(replay.log_probs) for replay in replays] == [0, 4][: len(acts)]
    branches = [guidance_branches(Sampling(), ode.encoding)]
    assert len(replay_log_probs(constant, [ode], branches, torch.device("cpu"))[0].log_probs) == 0


def test_conditional_guidance_samples_the_mixture_and_scores_the_condition():
    sampling = Sampling(guidance="conditional", guidance_scale=3.0, num_steps=3)
    times = torch.tensor([1.0, 0.7, 0.4, 0.0])
    branches = guidance_branches(sampling, 0.2, 0.1)
    painted = sample_latents(constant, [branches], [(1, 2)], SHAPE, times, sampling)
    for step in (0, 1):
        x, after = painted.states[:, step], painted.states[:, step + 1]
        for value, found in ((0.2, painted.log_probs), (3 * 0.2 - 2 * 0.1, painted.behaviour_log_probs)):
            gaussian = sde_step(x, torch.full_like(x, value), times[step : step + 1], times[step + 1 : step + 2], 0.7)
            assert float(found[0, step]) == pytest.approx(float(log_density(after, *gaussian)), abs=1e-6)
    assert (painted.log_probs - painted.behaviour_log_probs).abs().max() > 1e-4


def test_noise_depends_on_the_key_alone():
    times = torch.tensor([1.0, 0.6, 0.3, 0.0])
    branches = guidance_branches(Sampling(), 0.2)
    both = sample_latents(constant, [branches] * 2, [(1, 2), (3, 4)], SHAPE, times, STEPS)
    alone = sample_latents(constant, [branches], [(3, 4)], SHAPE, times, STEPS)
    torch.testing.assert_close(both.states[1], alone.states[0], rtol=0, atol=0)
    assert (both.states[0] - both.states[1]).abs().mean() > 0.1


def test_temperature_zero_walks_the_ode():
    (act,) = FlowExpert().act([Request("denoising", "d", user("p"), (1,))], Sampling(temperature=0.0, num_steps=4))
    assert act.num_actions == 0 and act.stochastic == (False,) * 4 and len(act.log_probs) == 0


# --- windows


def test_a_window_makes_the_other_steps_deterministic():
    policy = FlowExpert()
    (act,) = acts_of(played(policy, P=1, G=1, samplings={"denoising": Sampling(num_steps=6, sde_window=(2, 2))}))
    assert act.stochastic == (False, False, True, True, False, False) and act.num_actions == 2
    for step in (0, 1, 4, 5):
        x, sigma = act.states[step][None], act.times[step : step + 1]
        velocity = policy._velocity(x, sigma, [act.encoding]).detach()
        torch.testing.assert_close(act.states[step + 1], x[0] + velocity[0] * (act.times[step + 1] - sigma))
    torch.testing.assert_close(policy.replay([act])[0].log_probs, act.log_probs, rtol=0, atol=2e-6)


def test_a_window_moves_with_the_rollouts():
    window = "sampling.denoising={num_steps: 6, sde_window: {size: 2, schedule: SCHEDULE}}"

    def places(schedule, steps):
        recipe = parse_recipe(RECIPE, [window.replace("SCHEDULE", schedule)])
        return [sampling_params(recipe, step)["denoising"].sde_window for step in range(steps)]

    assert places("{name: progressive, steps_per_position: 3}", 8) == [(0, 2)] * 3 + [(1, 2)] * 3 + [(2, 2)] * 2
    assert places("fixed", 2) == [(0, 2)] * 2
    chosen = places("random", 60)
    assert {start for start, _ in chosen} == {0, 1, 2, 3} and chosen == places("random", 60)


# --- supervision


def test_the_likelihood_of_a_demonstration_is_minus_its_flow_matching_loss():
    policy, image = FlowExpert(), Image.new("L", (4, 4), 200)
    requests = [Request("denoising", "d", user("p"), (0, n)) for n in range(3)]
    acts = policy.encode_targets(requests, [image] * 3)
    assert len({float(act.times[0]) for act in acts}) == 3  # each key its own noise level
    for act, replay in zip(acts, policy.replay(acts), strict=True):
        sigma, noisy, clean = act.times[0], act.states[0], to_latent(image)
        torch.testing.assert_close(act.states[1], clean)
        noise = (noisy - (1 - sigma) * clean) / sigma
        velocity = policy._velocity(noisy[None], sigma[None], [act.encoding])[0]
        torch.testing.assert_close(replay.log_probs[0], -((velocity - (noise - clean)) ** 2).mean())


def test_a_flow_expert_learns_by_supervision():
    policy, learner = FlowExpert(), None
    learner = PolicyOptimizer(policy, OptimizerConfig(learning_rate=0.01), 300)
    images = {"bright": Image.new("L", (4, 4), 230), "dark": Image.new("L", (4, 4), 25)}
    curve = []
    for step in range(300):
        requests = [Request("denoising", "d", user(name), (step, n)) for n in range(4) for name in images]
        acts = policy.encode_targets(requests, list(images.values()) * 4)
        curve.append(learner.step(*supervised(acts))["denoising/nll"])
    assert sum(curve[-20:]) < 0.6 * sum(curve[:20])
    for name, image in images.items():
        requests = [Request("denoising", "d", user(name), (9, n)) for n in range(8)]
        drawn = policy.act(requests, Sampling(temperature=0.0, num_steps=10))
        levels = [act.image.convert("L").resize((1, 1)).getpixel((0, 0)) for act in drawn]
        assert abs(sum(levels) / 8 - image.getpixel((0, 0))) < 40, (name, levels)


# --- GRPO-Guard, velocity-MSE, DiffusionNFT


def stepped(advantages, *, prepare=None, **settings):
    """Stats and gradients of one optimizer step over two sampled drawings."""
    policy = FlowExpert()
    acts = acts_of(played(policy, P=1, G=2))
    config = algorithm(**settings)
    batch = prepare(policy, acts) if prepare else StepBatch(acts, advantages)
    stats = PolicyOptimizer(policy, OptimizerConfig(max_grad_norm=1e9), 1).step(batch, losses(config))
    return stats, {name: p.grad.clone() for name, p in policy.trainable().items()}, acts


def test_a_guarded_ratio_is_one_on_policy_and_weighs_steps_alike():
    stats, gradients, acts = stepped([1.0, -0.5], loss="grpo_guard")
    assert stats["denoising/ratio_max"] == stats["denoising/ratio_min"] == 1.0
    policy = FlowExpert()
    loss = torch.zeros(())
    for act, advantage in zip(acts, [1.0, -0.5], strict=True):
        taken = torch.tensor(act.stochastic)
        (replay,) = replay_log_probs(
            policy._velocity, [act], [guidance_branches(Sampling(), act.encoding)], torch.device("cpu"), ("mean", "std")
        )
        mean, std = replay.extras["mean"], replay.extras["std"]
        noise = (act.states[1:][taken] - mean.detach()) / std.view(-1, 1, 1, 1)
        log_ratio = ((mean - mean.detach()) * noise).flatten(1).mean(dim=1)
        length = act.times[:-1][taken] - act.times[1:][taken]
        loss = loss - (advantage * log_ratio.exp() / length).sum() / 8
    loss.backward()
    for name, parameter in policy.trainable().items():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-7)


def test_a_velocity_penalty_in_place_of_the_kl():
    def drifted(policy, acts):
        policy.freeze_reference()
        with torch.no_grad():
            policy.velocity[2].bias += 0.1
        with policy.reference():
            reference = replay_frozen(policy, acts, 10**9, ("velocity",))
        return StepBatch(acts, [0.0] * 2, None, reference)

    stats, gradients, _ = stepped([], prepare=drifted, beta=2.0, loss="dapo", kl_estimator="velocity_mse")
    assert stats["denoising/kl"] == pytest.approx(0.1**2, rel=1e-4)
    # 2 beta (v - v_ref) / D for each of the 16 dimensions
    torch.testing.assert_close(gradients["velocity.2.bias"], torch.full((16,), 2 * 2.0 * 0.1 / 16), rtol=1e-3, atol=0)


def test_nft_learns_from_the_renoised_picture():
    policy = FlowExpert()
    sampled = acts_of(played(policy, P=1, G=2))
    acts = [renoise(act, (7, n)) for n, act in enumerate(sampled)]
    for act, source in zip(acts, sampled, strict=True):
        torch.testing.assert_close(act.states[-1], source.states[-1])
        assert act.num_actions == 1 and act.log_probs is None
    with torch.no_grad():
        old = [
            Replay(torch.zeros(0), {"velocity": r.extras["velocity"] + 0.1}) for r in policy.replay(acts, ("velocity",))
        ]
    nft = {"denoising": NFT(NFTSettings(beta=0.5), "denoising")}
    stats = PolicyOptimizer(policy, OptimizerConfig(), 1).step(StepBatch(acts, [2.0, -3.0], old), nft)
    policy = FlowExpert()
    expected = 0.0
    for act, advantage, before in zip(acts, [2.0, -3.0], old, strict=True):
        sigma, noisy, clean = act.times[:1], act.states[:1], act.states[1:]
        noise = (noisy - (1 - sigma) * clean) / sigma
        velocity = policy._velocity(noisy, sigma, [act.encoding]).detach()
        good = optimality_prob(torch.tensor([advantage]))
        loss = nft_loss(velocity, before.extras["velocity"], clean, noise, good, beta=0.5, sigma=sigma)
        expected += float(loss) / 2
    assert stats["loss"] == pytest.approx(expected, rel=1e-5)


GUARD = "loss={name: grpo_guard, epsilon: 1.0e-4}"


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(["algorithm.per_kind.denoising={loss: nft}"], marks=pytest.mark.slow),
        pytest.param([f"algorithm.per_kind.denoising.{GUARD}"], marks=pytest.mark.slow),
        pytest.param([f"algorithm.per_kind.denoising.{GUARD}", "algorithm.num_iterations=2"], marks=pytest.mark.slow),
        pytest.param(
            ["algorithm.per_kind.denoising={loss: nft, beta: 0.01}", "algorithm.num_iterations=2"],
            marks=pytest.mark.slow,
        ),
        ["sampling.denoising.sde_window.size=2"],
    ],
)
def test_brighter_pictures_get_likelier(overrides):
    """Update moves the drawings towards the rewarded ones, whatever the objective."""
    recipe = parse_recipe(RECIPE, [*overrides, "optimizer.learning_rate=0.005"])
    policy = FlowExpert()
    policy.freeze_reference()
    learner = PolicyOptimizer(policy, recipe.optimizer, 60)

    def brightness(acts):
        return [float(act.states[-1].mean()) for act in acts]

    first = None
    for step in range(60):
        groups = played(policy, P=2, G=8, step=step, samplings=sampling_params(recipe, step))
        acts = acts_of(groups)
        values = torch.tensor(brightness(acts))
        first = first if first is not None else float(values.mean())
        advantages = (values - values.mean()) / (values.std() + 1e-4)
        credited = [ActWithAdvantage(act, float(a)) for act, a in zip(acts, advantages, strict=True)]
        stats = update(policy, learner, groups, credited, recipe, step)
    assert float(values.mean()) > first + 0.3, (first, float(values.mean()), stats)


# --- rates of parts


def test_a_part_has_its_own_rate():
    config = OptimizerConfig(learning_rate=0.1, param_group_lrs={"2": 0.001}, schedule="linear")
    learner = PolicyOptimizer(FlowExpert(), config, 4)
    assert learner.peak_lrs == [0.1, 0.001]
    acts = acts_of(played(learner.policy, P=1, G=2))
    for factor in (1.0, 0.75):
        learner.step(StepBatch(acts, [1.0, -1.0]), losses())
        assert [g["lr"] for g in learner.adamw.param_groups] == pytest.approx([0.1 * factor, 0.001 * factor])
    with pytest.raises(ConfigError, match=r"optimizer.param_group_lrs.transformer=0.1 names no trainable parameter"):
        PolicyOptimizer(FlowExpert(), OptimizerConfig(param_group_lrs={"transformer": 0.1}), 4)


# --- on-policy ratios


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize(("level", "fine"), [(0.7, True), (1e-8, False)])
def test_a_noise_level_that_rounding_outweighs_stops_before_the_weights_move(level, fine, autocast, monkeypatch):
    """At 1e-8 the on-policy ratio was 2e-18, and the run went on."""
    policy = FlowExpert(seed=1)
    policy.freeze_reference()
    recipe = parse_recipe(RECIPE, [f"sampling.denoising.noise_level={level}"])
    groups = played(policy, P=2, G=4, samplings=sampling_params(recipe))
    for parameter in policy.trainable().values():
        parameter.data += 1e-7  # what other kernels do
    start = {name: p.detach().clone() for name, p in policy.trainable().items()}
    learner = PolicyOptimizer(policy, recipe.optimizer, 1)
    credited = [ActWithAdvantage(act, (-1.0) ** n) for n, act in enumerate(acts_of(groups))]
    monkeypatch.setattr(FlowExpert, "autocast", autocast)
    if fine:
        update(policy, learner, groups, credited, recipe, 0)
        return
    with pytest.raises(
        NumericsError, match=r"replayed log-probs .*noise_level=1e-08.* Fix: raise sampling\.denoising\.noise_level"
    ):
        update(policy, learner, groups, credited, recipe, 0)
    assert learner.num_steps == 0 and all(torch.equal(p, start[name]) for name, p in policy.trainable().items())
