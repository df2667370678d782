"""Importance weights for rollouts that were sampled otherwise than they are scored, and the gate before the update."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from motet.config import parse_recipe
from motet.core.conversation import user
from motet.core.errors import ConfigError, NumericsError
from motet.core.protocols import Replay, Request
from motet.core.sampling import Sampling
from motet.core.task import Task
from motet.core.trajectory import ActWithAdvantage
from motet.numerics.ratios import rollout_is_weights
from motet.scenarios import generate_and_answer, text_to_image
from motet.training.batches import StepBatch
from motet.training.losses import resolve_loss
from motet.training.optimizer_step import PolicyOptimizer
from motet.training.policy_update import update
from motet.training.rollout import rollout
from tests.losses import algorithm, algorithm_section
from tests.runs import TrainableFakePolicy
from tests.tiny_policy import END, TinyPolicy

OWNER = torch.tensor([0, 2, 0, 2])


# --- the weights ----------------------------------------------------------------------------------------------------


def test_weights_by_hand():
    old, behaviour = torch.tensor([-1.0, -2.0, -3.0, -1.0]), torch.tensor([-1.5, -1.0, -3.3, -1.0])
    weights = rollout_is_weights(old, behaviour, OWNER, 3, "token")
    torch.testing.assert_close(weights, torch.tensor([0.5, -1.0, 0.3, 0.0]).exp())
    weights = rollout_is_weights(old, behaviour, OWNER, 3, "sequence")
    torch.testing.assert_close(weights, torch.tensor([0.8, -1.0, 0.8, -1.0]).exp())  # 0.5 + 0.3, and -1


def test_weights_have_no_gradient():
    log_probs = torch.tensor([-1.0, -2.0, -3.0, -1.0], requires_grad=True)
    assert not rollout_is_weights(log_probs, log_probs - 1, OWNER, 3).requires_grad


# --- the expected gradient, by enumeration --------------------------------------------------------------------------


def outcomes(policy, length):
    """All texts of so many letters, with their log-probs under a policy, as one that sampled them would have them."""
    request = Request("text", "answer", user("p"), (0, 0, 0, 0))
    encoding = policy.encode(request.context)
    for ids in itertools.product(range(END + 1), repeat=length):
        if END not in ids[:-1]:
            tokens = torch.tensor(ids)
            with torch.no_grad():
                log_probs = policy.score(encoding, tokens, Sampling())[0]
            yield policy.finished(request, encoding, Sampling(), tokens, log_probs)


def expected_gradient(learner, sampler, length, **options):
    """`E[gradient]` of the loss under what `sampler` samples: every outcome, weighed by its probability."""
    acts = list(outcomes(sampler, length))
    probs = [math.exp(float(act.log_probs.sum())) for act in acts]
    advantages = [len(acts) * p * math.cos(3.0 * n) for n, p in enumerate(probs)]
    config = parse_recipe(
        {"policy": {"path": "x"}, "run": {"steps": 1, "prompts_per_step": 1}, "rewards": [{"name": "format"}],
         "optimizer": {"max_grad_norm": 1e9, "max_tokens_per_microbatch": 10**9}},
    ).optimizer  # fmt: skip
    losses = {"text": resolve_loss(algorithm(epsilon=None, **options), "text")}
    PolicyOptimizer(learner, config, 1).add_gradients(StepBatch(acts, advantages), losses)
    return torch.cat([p.grad.flatten() for p in learner.trainable().values()])


def perturbed(policy, size):
    other = TinyPolicy()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, own in other.trainable().items():
            noise = torch.randn(own.shape, generator=generator)
            own.copy_(policy.trainable()[name] + size * noise)
    return other


@pytest.mark.parametrize(("length", "level"), [(1, "token"), (1, "sequence"), (2, "sequence")])
def test_with_the_weights_the_expected_gradient_is_that_of_sampling_on_policy(length, level):
    on_policy = expected_gradient(TinyPolicy(), TinyPolicy(), length)
    perturbation = perturbed(TinyPolicy(), 0.3)
    biased = expected_gradient(TinyPolicy(), perturbation, length)
    corrected = expected_gradient(TinyPolicy(), perturbation, length, rollout_is=level, rollout_is_threshold=1e9)
    scale = float(on_policy.norm())
    assert float((biased - on_policy).norm()) > 0.1 * scale
    assert float((corrected - on_policy).norm()) < 1e-5 * scale
    truncated = expected_gradient(TinyPolicy(), perturbation, length, rollout_is=level)
    assert float((truncated - on_policy).norm()) < 0.5 * float((biased - on_policy).norm())


def test_of_longer_acts_the_weights_of_tokens_correct_a_part():
    """The states that a token is sampled in keep the bias of the sampler: less variance for some bias."""
    on_policy = expected_gradient(TinyPolicy(), TinyPolicy(), 2)
    perturbation = perturbed(TinyPolicy(), 0.3)
    biased = expected_gradient(TinyPolicy(), perturbation, 2)
    corrected = expected_gradient(TinyPolicy(), perturbation, 2, rollout_is="token", rollout_is_threshold=1e9)
    assert 1e-3 * float(on_policy.norm()) < float((corrected - on_policy).norm())
    assert float((corrected - on_policy).norm()) < 0.8 * float((biased - on_policy).norm())


# --- the update -----------------------------------------------------------------------------------------------------


def recipe(passes=1, **options):
    return parse_recipe(
        {
            "policy": {"path": "x"}, "run": {"steps": 9, "prompts_per_step": 2}, "rewards": [{"name": "format"}],
            "algorithm": algorithm_section(num_iterations=passes, **options), "optimizer": {"learning_rate": 0.01},
        }
    )  # fmt: skip


def sampled(policy, scenario=generate_and_answer, **samplings):
    samplings = samplings or {"text": Sampling(max_tokens=6), "image": Sampling()}
    rows = [Task(n, {"prompt": f"p{n}", "question": f"q{n}"}) for n in range(2)]
    groups = rollout(policy, scenario, rows, 3, samplings=samplings, seed=0, step=0)
    acts = [act for group in groups for one in group.trajectories for act in one.acts]
    return groups, [ActWithAdvantage(act, math.cos(3.0 * n)) for n, act in enumerate(acts)]


def updated(policy, groups, acts, made):
    return update(policy, PolicyOptimizer(policy, made.optimizer, 9), groups, acts, made, 0)


def move(policy, size):
    generator = torch.Generator().manual_seed(5)
    for parameter in policy.trainable().values():
        parameter.data += size * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_on_policy_in_float32_nothing_changes(level, passes):
    plain, corrected = TinyPolicy(), TinyPolicy()
    groups, acts = sampled(plain)
    before = updated(plain, groups, acts, recipe(passes))
    after = updated(corrected, groups, acts, recipe(passes, rollout_is=level))
    assert before == after and after["old_log_probs_recomputed"] == 0
    for kind in ("text", "image"):
        assert after[f"{kind}/rollout_is_mean"] == 1 and after[f"{kind}/rollout_is_truncated"] == 0
        assert after[f"{kind}/train_rollout_ratio_outside"] == 0
    for name, parameter in plain.trainable().items():
        assert torch.equal(parameter, corrected.trainable()[name])


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("loss", ["grpo", "cispo", "sapo", "vespo"])
def test_acts_of_an_older_version_are_corrected_or_rejected(loss, passes):
    policy, cap = TinyPolicy(), {"epsilon_high": 5.0} if loss == "cispo" else {}
    groups, acts = sampled(policy)
    policy.version += 1
    move(policy, 0.3)
    with pytest.raises(ConfigError, match=r"sampled by version 0 .*version 1 .*set algorithm\.loss\.rollout_is to tok"):
        updated(policy, groups, acts, recipe(passes, loss=loss, **cap))
    assert policy.version == 1
    stats = updated(
        policy, groups, acts, recipe(passes, loss=loss, rollout_is="token", rollout_is_threshold=1.1, **cap)
    )
    assert stats["old_log_probs_recomputed"] == 1
    assert stats["text/ratio_min"] == pytest.approx(1, abs=1e-6) or passes > 1
    assert 0 < stats["text/rollout_is_mean"] != 1 and 0 < stats["text/rollout_is_truncated"] < 0.5
    assert stats["text/train_rollout_ratio_outside"] > 0.3


def test_the_key_that_corrects_is_that_of_the_kind():
    policy = TinyPolicy()
    groups, acts = sampled(policy)
    policy.version += 1
    made = recipe(per_kind={"image": {"loss": "dapo"}}, rollout_is="token")
    with pytest.raises(ConfigError, match=r"'image'.*algorithm\.per_kind\.image\.loss\.rollout_is to token"):
        updated(policy, groups, acts, made)


@pytest.mark.parametrize("passes", [1, 2])
def test_a_sampler_of_another_engine_is_corrected_or_rejected(passes):
    """Of the present version and in float32, and yet its log-probs are not those of replay."""
    policy = TinyPolicy()
    groups, acts = sampled(policy)
    move(policy, 0.3)
    with pytest.raises(NumericsError, match=r"expected at most 0\.1 in the mean.*rollout_is to token"):
        updated(policy, groups, acts, recipe(passes))
    stats = updated(policy, groups, acts, recipe(passes, rollout_is="token"))
    assert stats["old_log_probs_recomputed"] == 1 and stats["image/rollout_is_mean"] != 1
    assert stats["text/ratio_max"] == pytest.approx(1, abs=1e-6) or passes > 1


def test_what_no_weight_can_correct_is_rejected():
    policy = TinyPolicy()
    groups, acts = sampled(policy)
    move(policy, 8.0)
    before = policy.bigrams.detach().clone()
    with pytest.raises(NumericsError, match=r"expected at most 3 in the mean") as caught:
        updated(policy, groups, acts, recipe(rollout_is="token"))
    assert "rollout_is" not in caught.value.fix and torch.equal(policy.bigrams, before)


def test_denoising_acts_are_corrected():
    policy = TrainableFakePolicy(kinds=("denoising",))
    groups, acts = sampled(policy, text_to_image, denoising=Sampling(num_steps=4))
    policy.version += 1
    move(policy, 0.3)
    stats = updated(policy, groups, acts, recipe(rollout_is="sequence"))
    assert stats["denoising/rollout_is_mean"] != 1 and stats["denoising/ratio"] == 1


def test_conditional_guidance_is_weighed_by_what_was_sampled_from():
    """Its samples are those of the guided distribution, which is not the scored one: the weights are the ratio of
    the two, whose neglect is the bias of `conditional`."""
    policy = TinyPolicy()
    groups, acts = sampled(policy)
    guided = [replace(one.act, behaviour_log_probs=one.act.log_probs + 0.25) for one in acts]
    swap = {id(one.act): act for one, act in zip(acts, guided, strict=True)}
    groups = [
        replace(g, trajectories=tuple(replace(t, acts=tuple(swap[id(a)] for a in t.acts)) for t in g.trajectories))
        for g in groups
    ]
    acts = [ActWithAdvantage(swap[id(one.act)], one.advantage) for one in acts]
    plain, corrected = TinyPolicy(), TinyPolicy()
    before = updated(plain, groups, acts, recipe())
    after = updated(corrected, groups, acts, recipe(rollout_is="token"))
    assert before["text/rollout_is_mean"] == pytest.approx(math.exp(-0.25))  # reported either way
    assert after["grad_norm"] == pytest.approx(math.exp(-0.25) * before["grad_norm"])
    assert after["text/train_rollout_logprob_diff"] < 1e-5


def test_old_extras_are_kept_where_log_probs_are_not_replayed():
    policy = TinyPolicy()
    groups, acts = sampled(policy)
    replayed, own = [], policy.replay
    policy.replay = lambda acts, needs=(): replayed.extend(acts) or own(acts, needs)
    updated(policy, groups, acts, recipe(rollout_is="token"))
    assert len(replayed) == 2 * len(acts)  # the check, and the step
    assert all(isinstance(one, Replay) for one in own([acts[0].act]))


@pytest.mark.parametrize(
    ("options", "key"),
    [({"rollout_is_threshold": 0.5}, "rollout_is_threshold"), ({"rollout_is": "tokens"}, "rollout_is"),
     ({"loss": "vespo", "rollout_is": "sequence"}, "rollout_is")],
)  # fmt: skip
def test_wrong_options_name_the_key(options, key):
    with pytest.raises(ConfigError, match=rf"algorithm\.loss\.{key}"):
        resolve_loss(algorithm(**options), "text")
