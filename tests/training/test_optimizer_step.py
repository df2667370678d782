"""One optimizer step: global denominators, ratios, clipping, settings by kind, schedules, what is rejected."""

import math
import random

import pytest
import torch

from motet.config import OptimizerConfig, parse_recipe
from motet.core.errors import ConfigError, NumericsError
from motet.core.protocols import Replay, TrainablePolicy
from motet.core.task import Task
from motet.core.trajectory import ActWithAdvantage, Sampling
from motet.policies import load_policy
from motet.scenarios import generate_and_answer, text_to_image
from motet.testing import FakePolicy
from motet.training.batches import StepBatch, count_by_kind, micro_batches
from motet.training.frozen_replays import replay_frozen
from motet.training.losses import Loss, LossSettings
from motet.training.optimizer_step import PolicyOptimizer, lr_multiplier
from motet.training.policy_update import minibatches, update
from motet.training.rollout import encode_demonstrations, rollout
from tests.losses import algorithm, algorithm_section, kind_config, losses, supervised
from tests.runs import WORLD, TrainableFakePolicy

CLIPPED = ("grpo", "bnpo", "dapo", "dr_grpo", "luspo")
POLICY_GRADIENT = (*CLIPPED, "cispo", "sapo", "vespo")
KINDS = ("text", "image")
BOUND = 1e-4
"""How far from 1 a float32 ratio may be on policy (invariant 1)."""


def optimizer(budget=10**9, **settings):
    return OptimizerConfig(max_tokens_per_microbatch=budget, max_grad_norm=1e9, **settings)


def writing(request):
    return "w" * (1 + sum(request.key) % 9)


def played(policy, P=3, G=3):
    rows = [Task(n, {"prompt": f"p{n}", "question": f"q{n}"}) for n in range(P)]
    samplings = {"text": Sampling(max_tokens=8), "image": Sampling(temperature=2.0)}
    return rollout(policy, generate_and_answer, rows, G, samplings=samplings, seed=0, step=0)


def acts_of(groups):
    return [act for group in groups for t in group.trajectories for act in t.acts]


def disturb(policy, size=0.3):
    """Move the weights, so that ratios are not 1."""
    generator = torch.Generator().manual_seed(1)
    for parameter in policy.trainable().values():
        parameter.data += size * torch.randn(parameter.shape, generator=generator)


def fake(**settings):
    return TrainableFakePolicy(writes=writing, **settings)


def mixed_step(policy, algorithm_config, order=None, budget=10**9, weights=None):
    """One step over acts of both kinds with off-policy ratios, KL and entropy; its gradients, and its numbers."""
    acts = acts_of(played(policy))
    policy.freeze_reference()
    disturb(policy)
    reference = None
    with policy.reference():
        reference = replay_frozen(policy, acts, 10**9)
    advantages = [math.sin(3.0 * n) for n in range(len(acts))]
    order = list(range(len(acts))) if order is None else order
    batch = StepBatch(
        [acts[n] for n in order],
        [advantages[n] for n in order],
        [Replay(acts[n].log_probs) for n in order],
        [reference[n] for n in order],
        max_actions={"text": 12, "image": 4},
    )
    stats = PolicyOptimizer(policy, optimizer(budget), 10).step(batch, losses(algorithm_config))
    grads = {name: p.grad.clone() for name, p in policy.trainable().items() if p.grad is not None}
    return grads, stats


def same(one, other, rtol):
    assert one.keys() == other.keys()
    for name in one:
        scale = float(one[name].abs().max())
        torch.testing.assert_close(
            one[name], other[name], rtol=rtol, atol=rtol * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


# --- invariant 4: denominators of the whole step


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", POLICY_GRADIENT)
def test_micro_batches_and_order_do_not_change_the_gradient(loss_type, level):
    options = {"importance_sampling_level": level, "entropy_bonus": 0.05, "kl_bias_correction": True}
    options |= {"epsilon_high": 1.2} if loss_type in (*CLIPPED, "cispo") else {}
    fixed = {"luspo": "sequence", "vespo": "token"}.get(loss_type, level)
    options["importance_sampling_level"] = fixed
    config = algorithm(loss=loss_type, beta=0.1, per_kind={"image": kind_config(weight=0.5)}, **options)
    whole, numbers = mixed_step(fake(), config)
    count = len(acts_of(played(fake())))
    shuffled = random.Random(0).sample(range(count), count)
    for order, budget in ((None, 1), (None, 25), (shuffled, 10**9), (shuffled, 30)):
        grads, stats = mixed_step(fake(), config, order, budget)
        same(whole, grads, rtol=2e-6)
        assert stats == pytest.approx(numbers, rel=1e-5)
    assert min(float(g.abs().max()) for g in whole.values()) > 1e-4


@pytest.mark.parametrize("corrected", [False, True], ids=["plain_kl", "corrected_kl"])
@pytest.mark.parametrize("loss_type", CLIPPED)
def test_the_gradient_is_that_of_the_formula(loss_type, corrected):
    """The loss once more, act by act, in float64 and without packing. The entropy is a mean over the tokens always."""
    config = algorithm(
        loss=loss_type, beta=0.1, entropy_bonus=0.05, epsilon=0.1, epsilon_high=0.3, delta=1.35,
        kl_bias_correction=corrected,
    )  # fmt: skip
    grads, stats = mixed_step(fake(), config)
    policy = fake()
    acts = acts_of(played(policy))
    start = {k: p.detach().double() for k, p in policy.trainable().items()}
    disturb(policy)
    now = {k: p.detach().double().requires_grad_() for k, p in policy.trainable().items()}
    total = {kind: count_by_kind(acts)[kind] for kind in KINDS}
    loss = torch.zeros((), dtype=torch.float64)
    for number, act in enumerate(acts):
        temperature = act.sampling.scoring_temperature
        logp = torch.log_softmax(now[act.kind] / temperature, 0)
        ref = torch.log_softmax(start[act.kind] / temperature, 0)[act.ids]
        entropy = -(logp.exp() * logp).sum()
        advantage = math.sin(3.0 * number)
        log_ratio = logp[act.ids] - act.log_probs
        ratio = (log_ratio.mean().expand(len(act.ids)) if loss_type == "luspo" else log_ratio).exp()
        surrogate = torch.minimum(ratio.clamp(max=1.35) * advantage, ratio.clamp(0.9, 1.3) * advantage)
        difference = ref - logp[act.ids]
        divergence = (difference.exp() - difference - 1) * (ratio if corrected else 1.0)
        per_action = -surrogate + 0.1 * divergence
        acts_here, actions_here = total[act.kind]
        loss = loss - 0.05 * len(act.ids) * entropy / actions_here
        if loss_type == "luspo":
            loss = loss + per_action.sum() / acts_here
        elif loss_type == "grpo":
            loss = loss + per_action.mean() / acts_here
        elif loss_type == "dr_grpo":
            loss = loss + per_action.sum() / (acts_here * {"text": 12, "image": 4}[act.kind])
        else:
            loss = loss + per_action.sum() / actions_here
    loss.backward()
    same(grads, {k: now[k].grad.float() for k in grads}, rtol=1e-5)
    assert stats["loss"] == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    assert stats["loss"] == pytest.approx(stats["text/loss"] + stats["image/loss"], rel=1e-6)


@pytest.fixture(scope="module")
def janus(tiny_checkpoint):
    return load_policy(tiny_checkpoint)


@pytest.fixture(scope="module")
def janus_groups(janus):
    from motet.shapes.world import ShapesRows

    rows = [Task(n, ShapesRows("train", 0, WORLD).row(n)) for n in range(2)]
    samplings = {"text": Sampling(max_tokens=8), "image": Sampling(guidance="guided", guidance_scale=2.0)}
    return rollout(janus, generate_and_answer, rows, 3, samplings=samplings, seed=0, step=0)


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_micro_batches_of_a_real_model_do_not_change_the_gradient(tiny_checkpoint, janus_groups, loss_type):
    """Padding, shared prefixes and guidance included."""
    acts, results = acts_of(janus_groups), []
    for budget, order in ((10**9, 1), (1, 1), (150, -1)):
        policy = load_policy(tiny_checkpoint)
        config = algorithm(loss=loss_type, entropy_bonus=0.01)
        chosen = list(range(len(acts)))[::order]
        batch = StepBatch(
            [acts[n] for n in chosen], [(-1.0) ** n for n in chosen], [Replay(acts[n].log_probs) for n in chosen]
        )
        PolicyOptimizer(policy, optimizer(budget), 1).step(batch, losses(config))
        results.append({name: p.grad for name, p in policy.trainable().items() if p.grad is not None})
    for other in results[1:]:
        same(results[0], other, rtol=2e-4)


@pytest.mark.parametrize("budget", [1, 10, 37, 1000])
def test_micro_batches_keep_the_budget(budget):
    costs = [random.Random(0).randint(1, 30) for _ in range(40)]
    found = list(micro_batches(costs, budget))
    assert sorted(n for batch in found for n in batch) == list(range(40))
    assert all(len(b) == 1 or len(b) * max(costs[n] for n in b) <= budget for b in found)
    assert len(found) == {1: 40}.get(budget, len(found)) and list(micro_batches([], 5)) == []


def test_acts_without_actions_count_and_are_not_replayed():
    """A picture drawn without a stochastic step has no action, and still is one of two acts."""
    policy = fake(kinds=("denoising",))
    tasks, samplings = [Task(0, {"prompt": "p"})], [Sampling(num_steps=3, temperature=t) for t in (1.0, 0.0)]
    acts = [
        acts_of(rollout(policy, text_to_image, tasks, 1, samplings={"denoising": s}, seed=0, step=0))[0]
        for s in samplings
    ]
    replayed = []
    policy.replay = lambda asked, needs=(): replayed.extend(asked) or FakePolicy.replay(policy, asked, needs)
    stats = PolicyOptimizer(policy, optimizer(), 1).step(StepBatch(acts, [1.0, 1.0]), losses())
    assert replayed == acts[:1] and stats["loss"] == -0.5 and stats["denoising/ratio"] == 1.0
    with pytest.raises(ValueError, match="needs an act with an action"):
        PolicyOptimizer(policy, optimizer(), 1).step(StepBatch(acts[1:], [1.0]), losses())


# --- invariant 1: ratios


def test_ratios_on_policy_are_one(janus, janus_groups):
    acts = acts_of(janus_groups)
    batch = StepBatch(acts, [0.0] * len(acts), [Replay(a.log_probs) for a in acts])
    stats = PolicyOptimizer(janus, optimizer(), 1).step(batch, losses())
    for kind in KINDS:
        assert stats[f"{kind}/ratio"] == pytest.approx(1.0, abs=BOUND)
        assert stats[f"{kind}/ratio_max"] < 1 + BOUND and stats[f"{kind}/ratio_min"] > 1 - BOUND
        assert 0 < stats[f"{kind}/train_rollout_logprob_diff_max"] < BOUND  # nothing is compared with itself
        assert stats[f"{kind}/clip_fraction"] == 0


def recipe(**sections):
    base = {"policy": {"path": "x"}, "run": {"steps": 1, "prompts_per_step": 4}}
    base["rewards"] = [{"name": "format"}]
    return parse_recipe({**base, **sections})


def credited(groups, advantage=lambda number: (-1.0) ** number):
    return [ActWithAdvantage(act, advantage(n)) for n, act in enumerate(acts_of(groups))]


def updated(policy, groups, credit=None, step=0, **sections):
    made = recipe(**sections)
    learner = PolicyOptimizer(policy, made.optimizer, 10)
    return learner, update(policy, learner, groups, credited(groups) if credit is None else credit, made, step)


def test_the_fake_is_trainable():
    assert isinstance(fake(), TrainablePolicy)


def test_old_log_probs_are_those_of_sampling():
    policy = fake()
    groups = played(policy)
    disturb(policy, 0.05)
    _, stats = updated(policy, groups)
    assert stats["old_log_probs_recomputed"] == 0
    assert abs(stats["text/ratio"] - 1) > 0.01 and stats["text/train_rollout_logprob_diff_max"] > 0.01


def test_ratios_that_start_far_from_one_stop_before_the_weights_move():
    policy = fake()
    groups = played(policy)
    disturb(policy)
    start = {name: p.detach().clone() for name, p in policy.trainable().items()}
    with pytest.raises(NumericsError, match=r"log-probs of the image acts .*expected at most 0\.1 in the mean"):
        updated(policy, groups)
    assert all(torch.equal(p, start[name]) for name, p in policy.trainable().items())


@pytest.mark.parametrize("several", [False, True])
def test_under_autocast_old_log_probs_are_replayed(several):
    """Invariant 3: the ratio starts at 1 although sampling and replay disagree, and the gap is reported."""
    policy = fake()
    groups = played(policy)
    disturb(policy, 0.05)  # what bfloat16 does to a replay, exaggerated
    policy.autocast = torch.bfloat16
    passes = {"num_iterations": 2} if several else {}
    _, stats = updated(policy, groups, algorithm=passes, optimizer={"learning_rate": 1e-6})
    assert stats["old_log_probs_recomputed"] == 1
    assert stats["text/ratio_max"] == pytest.approx(1.0, abs=1e-4) == stats["image/ratio_min"]
    assert stats["text/train_rollout_logprob_diff_max"] > 0.01


def test_bfloat16_ratios_are_one_and_the_gap_is_bounded(tiny_checkpoint):
    from motet.config import PolicyConfig
    from motet.shapes.world import ShapesRows

    policy = load_policy(tiny_checkpoint, PolicyConfig(path=str(tiny_checkpoint), dtype="bfloat16"))
    rows = [Task(n, ShapesRows("train", 0, WORLD).row(n)) for n in range(2)]
    groups = rollout(
        policy,
        generate_and_answer,
        rows,
        2,
        samplings={"text": Sampling(max_tokens=8), "image": Sampling()},
        seed=0,
        step=0,
    )
    _, stats = updated(policy, groups)
    assert stats["old_log_probs_recomputed"] == 1
    for kind in KINDS:
        assert stats[f"{kind}/ratio_max"] == stats[f"{kind}/ratio_min"] == 1.0
        assert stats[f"{kind}/train_rollout_logprob_diff_max"] < 0.05


def test_gradients_are_freed_after_the_update():
    policy = fake()
    updated(policy, groups := played(policy, P=1, G=1), credited(groups, lambda n: 1.0))
    assert all(parameter.grad is None for parameter in policy.trainable().values())


# --- clipping and settings by kind


def test_clipping_acts_from_the_second_optimizer_step_on(monkeypatch):
    monkeypatch.setattr(PolicyOptimizer, "free_gradients", lambda self: None)  # the last step's gradients are looked at

    def second_step(epsilon):
        policy = fake()
        groups = played(policy, P=1, G=1)
        credit = credited(groups, lambda n: 1.0)
        sections = {
            "algorithm": algorithm_section(num_iterations=2, epsilon=epsilon),
            "optimizer": {"learning_rate": 1.0},
        }
        _, stats = updated(policy, groups, credit, **sections)
        return policy, stats

    policy, stats = second_step(0.2)
    assert (
        stats["text/clip_fraction"] == stats["image/clip_fraction"] == 0.5
    )  # none of the first step, all of the second
    assert all(not p.grad.any() for name, p in policy.trainable().items() if name != "drift")
    assert stats["image/ratio_max"] > 1.2
    policy, stats = second_step(None)
    assert stats["image/clip_fraction"] == 0
    assert policy.trainable()["image"].grad.abs().max() > 0.01


def test_negative_advantages_are_clipped_below():
    policy = fake()
    groups = played(policy, P=1, G=1)
    sections = {"algorithm": {"num_iterations": 2}, "optimizer": {"learning_rate": 1.0}}
    _, stats = updated(policy, groups, credited(groups, lambda n: -1.0), **sections)
    assert stats["image/clip_fraction"] == 0.5 and stats["image/ratio_min"] < 0.8 and stats["image/ratio_max"] == 1.0


def test_each_kind_has_its_own_settings():
    config = algorithm(
        epsilon=0.2, delta=4.0, beta=0.1,
        per_kind={
            "image": kind_config(epsilon=0.05, epsilon_high=0.06, delta=3.0, beta=0.0, weight=0.25),
            "text": kind_config(),
        },
    )  # fmt: skip
    made = {
        kind: (loss.settings.epsilon, loss.settings.epsilon_high, loss.settings.delta, loss.beta, loss.weight)
        for kind, loss in losses(config).items()
    }
    assert made == {
        "text": (0.2, None, 4.0, 0.1, 1.0),
        "image": (0.05, 0.06, 3.0, 0.0, 0.25),
        "denoising": (0.2, None, 4.0, 0.1, 1.0),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("own", "factor"), [(kind_config(weight=0.5), 0.5), (kind_config(weight=0.0), 0.0), (kind_config(), 1.0)]
)
def test_the_weight_of_a_kind_scales_its_loss_alone(own, factor):
    plain, _ = mixed_step(fake(), algorithm(beta=0.1, entropy_bonus=0.1))
    weighted, _ = mixed_step(fake(), algorithm(beta=0.1, entropy_bonus=0.1, per_kind={"image": own}))
    same({"text": plain["text"], "image": factor * plain["image"]}, weighted, rtol=1e-6)


def test_the_clip_range_and_the_kl_of_a_kind_are_its_own():
    plain, free = mixed_step(fake(), algorithm(epsilon=None, beta=0.0))
    tight, stats = mixed_step(fake(), algorithm(epsilon=None, per_kind={"image": kind_config(epsilon=1e-4)}))
    assert stats["image/clip_fraction"] > 0.3 and stats["text/clip_fraction"] == 0 == free["image/clip_fraction"]
    same({"text": plain["text"]}, {"text": tight["text"]}, rtol=1e-7)
    assert float((plain["image"] - tight["image"]).abs().max()) > 1e-3
    held, _ = mixed_step(fake(), algorithm(epsilon=None, beta=0.0, per_kind={"text": kind_config(beta=0.5)}))
    same({"image": plain["image"]}, {"image": held["image"]}, rtol=1e-7)
    assert float((plain["text"] - held["text"]).abs().max()) > 1e-4


def test_the_cap_of_a_kind_is_its_own():
    """Of cispo, whose clipped actions keep their gradient: capped, not cut off."""
    _, free = mixed_step(fake(), algorithm(loss="cispo", epsilon_high=100.0))
    config = algorithm(loss="cispo", epsilon_high=100.0, per_kind={"image": kind_config("cispo", epsilon_high=1.0)})
    _, stats = mixed_step(fake(), config)
    assert stats["image/clip_fraction"] > 0.2 and stats["text/clip_fraction"] == 0 == free["image/clip_fraction"]


@pytest.mark.parametrize("loss_type", ["sapo", "vespo"])
def test_settings_of_a_loss_reach_it(loss_type):
    """And a loss without a clip reports no share of clipped actions."""
    keys = {"sapo": ("temperature_pos", "temperature_neg")}
    keys["vespo"] = ("k_pos", "lambda_pos", "k_neg", "lambda_neg")
    plain, stats = mixed_step(fake(), algorithm(loss=loss_type))
    assert not any("clip_fraction" in name for name in stats)
    for key in keys[loss_type]:
        other, _ = mixed_step(fake(), algorithm(loss=loss_type, **{key: 5.0}))
        assert any(not torch.allclose(plain[name], other[name], rtol=1e-3) for name in plain), key


def test_the_kl_is_to_the_reference(monkeypatch):
    """With no advantage only the KL acts, and it pulls the weights back to where they were."""
    monkeypatch.setattr("motet.training.rollout_gate.MAX_LOGPROB_DIFF", math.inf)  # one rollout feeds many updates here
    policy = fake()
    groups = played(policy)
    policy.freeze_reference()
    start = policy.trainable()["image"].detach().clone()
    disturb(policy)
    before = float((policy.trainable()["image"].detach() - start).norm())
    for _ in range(15):
        policy.version = 0  # that of the rollout
        sections = {"algorithm": {"beta": 1.0}, "optimizer": {"learning_rate": 0.02}}
        _, stats = updated(policy, groups, credited(groups, lambda n: 0.0), **sections)
    assert 0 < stats["image/kl"] < 0.1
    assert float((policy.trainable()["image"].detach() - start).norm()) < before
    assert torch.equal(policy.start["image"], start)  # and the reference itself has not moved


# --- what is rejected


def reject(policy, batch, own, words):
    before = {name: p.detach().clone() for name, p in policy.trainable().items()}
    learner = PolicyOptimizer(policy, optimizer(), 10)
    with pytest.raises(NumericsError, match=words):
        learner.step(batch, own)
    assert all(torch.equal(p, before[name]) for name, p in policy.trainable().items())
    assert policy.version == 0 == learner.num_steps and not learner.adamw.state


def test_what_is_not_finite_is_an_error_and_leaves_the_weights():
    policy = fake()
    acts = acts_of(played(policy))
    bad = [math.nan if act.kind == "image" and n > 8 else 1.0 for n, act in enumerate(acts)]
    reject(policy, StepBatch(acts, bad), losses(), r"image acts \(image\) is nan: .*an advantage")
    old = [Replay(torch.full_like(act.log_probs, -math.inf)) for act in acts]
    reject(policy, StepBatch(acts, [-1.0] * len(acts), old), losses(), "the .* acts .* is inf: .*an old")
    reject(policy, StepBatch(acts, [1.0] * len(acts), old), losses(), "gradient norm is nan")  # clipped
    broken = fake()
    acts = acts_of(played(broken))
    broken.trainable()["text"].data[END_OF_TEXT] = math.nan
    before = broken.trainable()["image"].detach().clone()
    learner = PolicyOptimizer(broken, optimizer(), 10)
    with pytest.raises(
        NumericsError, match=r"text acts \(answer\) is nan: \d+ of \d+ replayed log-probs are not finite"
    ):
        learner.step(StepBatch(acts, [1.0] * len(acts)), losses())
    assert torch.equal(broken.trainable()["image"], before) and learner.num_steps == 0


END_OF_TEXT = 256


class Kink(Loss):
    """A finite loss whose gradient is not: the square root at zero."""

    def __call__(self, batch):
        return (batch.log_probs - batch.log_probs.detach()).abs().sqrt().sum(), {}


def test_a_gradient_that_is_not_finite_is_an_error():
    policy = fake()
    kink = {kind: Kink(LossSettings(), kind) for kind in KINDS}
    reject(policy, StepBatch(acts_of(played(policy))), kink, "gradient norm is nan")


def test_gradients_are_summed_in_one_order():
    policy, seen = fake(), []
    policy.trainable()["image"].register_hook(lambda _: seen.append(torch.are_deterministic_algorithms_enabled()))
    acts = acts_of(played(policy))
    PolicyOptimizer(policy, optimizer(), 1).step(StepBatch(acts, [1.0] * len(acts)), losses())
    assert seen and all(seen) and not torch.are_deterministic_algorithms_enabled()


def test_acts_from_data_have_no_ratio():
    policy = fake()
    shown = encode_demonstrations(policy, generate_and_answer, [row()], {"image": "target", "answer": "solution"})
    with pytest.raises(ValueError, match="encoded from data, not sampled"):
        PolicyOptimizer(policy, optimizer(), 1).step(StepBatch(list(shown[0].acts), [1.0] * 2), losses())


def test_a_policy_without_trainable_weights():
    class Frozen(TrainableFakePolicy):
        def trainable(self):
            return {}

    with pytest.raises(ConfigError, match="no trainable parameters"):
        PolicyOptimizer(Frozen(), optimizer(), 1)


def test_a_step_without_acts_is_skipped():
    policy = fake()
    groups = played(policy)
    learner, stats = updated(policy, groups, [])
    assert stats == {"skipped": 1.0} and policy.version == 0 == learner.num_steps


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_acts_without_advantage_are_not_replayed_and_change_nothing(loss_type):
    """The update equals one that replays every act: the denominators still count them all."""
    scaled = {"scale_rewards": "none"} if loss_type == "dr_grpo" else {}
    settings = {"algorithm": {"loss": loss_type, **scaled}, "optimizer": {"learning_rate": 0.01}}
    quick, whole = fake(), fake()
    groups = played(quick)
    credit = credited(groups, lambda n: [1.5, 0.0, -0.5, 0.0, 0.0][n % 5])
    calls = []
    quick.replay, replay = lambda acts, needs=(): calls.extend(acts) or replay(acts, needs), quick.replay
    updated(quick, groups, credit, **settings)
    assert {id(act) for act in calls} == {id(one.act) for one in credit if one.advantage}
    made = recipe(**settings)
    acts = [one.act for one in credit]
    longest = {
        act.kind: max(a.num_actions for a in acts if a.kind == act.kind) if act.kind != "text" else 512 for act in acts
    }
    batch = StepBatch(acts, [one.advantage for one in credit], [Replay(a.log_probs) for a in acts], max_actions=longest)
    PolicyOptimizer(whole, made.optimizer, 10).step(batch, losses(made.algorithm))
    for name, parameter in quick.trainable().items():
        assert torch.allclose(parameter, whole.trainable()[name], atol=1e-6), name
    assert any(not torch.equal(p, fake().trainable()[name]) for name, p in quick.trainable().items())


def test_old_log_probs_recomputed_only_for_nonzero_advantage_acts():
    """Of the others only the first of each name in a group: a fallback act is one of these."""
    policy = fake()
    groups = played(policy)
    credit = credited(groups, lambda n: 1.0 if n % 5 == 2 else 0.0)
    calls = []
    policy.replay, replay = lambda acts, needs=(): calls.extend(acts) or replay(acts, needs), policy.replay
    policy.autocast = torch.bfloat16
    learner, _ = updated(policy, groups, credit, algorithm={"num_iterations": 2, "num_minibatches": 2})
    speaking = {id(one.act) for one in credit if one.advantage}
    firsts = {id(act) for group in groups for act in group.trajectories[0].acts}
    assert learner.num_steps == 4 and {id(act) for act in calls} == speaking | firsts != speaking
    assert len({id(one.act) for one in credit}) > len(speaking | firsts)


def test_a_step_in_which_nothing_has_an_advantage_is_still_a_step():
    policy = fake()
    groups = played(policy)
    learner, stats = updated(policy, groups, credited(groups, lambda n: 0.0))
    assert learner.num_steps == 1 and stats["grad_norm"] == 0 and "skipped" not in stats


# --- acts that nothing trained makes


def half(frozen):
    """The fake with one of its kinds frozen."""
    policy = fake()
    policy._logits[frozen].requires_grad_(False)
    trainable = policy.trainable
    policy.trainable = lambda: {name: p for name, p in trainable().items() if p.requires_grad}
    return policy


@pytest.mark.parametrize("frozen", KINDS)
@pytest.mark.parametrize("passes", [{}, {"num_iterations": 2, "num_minibatches": 2}])
def test_a_step_in_which_only_frozen_acts_have_an_advantage_has_a_gradient_of_zero(frozen, passes):
    """What the optimizer does then, momentum included, is what it does when no act has an advantage."""

    def trained(advantage):
        policy = half(frozen)
        groups = played(policy)
        whole = [ActWithAdvantage(act, (-1.0) ** n) for n, act in enumerate(acts_of(groups))]
        made = recipe(algorithm=passes, optimizer={"learning_rate": 0.01})
        learner = PolicyOptimizer(policy, made.optimizer, 10)
        update(policy, learner, groups, whole, made, 0)
        silent = [ActWithAdvantage(one.act, advantage if one.act.kind == frozen else 0.0) for one in whole]
        policy.version = 0  # that of the rollout, which is used twice here
        return policy, learner, update(policy, learner, groups, silent, made, 1)

    (policy, learner, stats), (other, _, quiet) = trained(1.0), trained(0.0)
    assert learner.num_steps == 2 * len(passes or "1") ** 2 and stats["grad_norm"] == 0 == quiet["grad_norm"]
    (moving,) = set(KINDS) - {frozen}
    assert torch.equal(policy.trainable()[moving], other.trainable()[moving])
    assert not torch.equal(policy.trainable()[moving], fake().trainable()[moving])
    assert {f"{frozen}/ratio", f"{moving}/ratio"} <= stats.keys() and stats[f"{frozen}/ratio"] == pytest.approx(1)


def test_fallback_act_depends_on_trainable_parameters():
    """The first of a group where that has a gradient, else the first of another name, and no further ones."""
    for frozen, shown in (("text", {"image"}), ("image", {"image", "text"})):
        policy, calls = half(frozen), []
        groups = played(policy)
        assert acts_of(groups)[0].kind == "image"
        policy.replay = lambda acts, needs=(), to=calls, of=policy.replay: to.extend(acts) or of(acts, needs)
        _, stats = updated(policy, groups, credited(groups, lambda n: 0.0))
        assert {act.kind for act in calls} == shown and len(calls) == len(shown) and stats["grad_norm"] == 0
        assert {kind for kind in KINDS if f"{kind}/ratio" in stats} == shown


def test_only_a_run_that_trains_no_kind_of_its_acts_is_rejected():
    policy = half("text")
    policy._logits["image"].requires_grad_(False)
    policy.trainable = lambda: {"drift": policy._drift}  # a part that makes neither
    acts = {kind: [act for act in acts_of(played(policy)) if act.kind == kind] for kind in KINDS}
    learner = PolicyOptimizer(policy, optimizer(), 9, kinds=KINDS)
    assert learner.step(*supervised(acts["text"]))["grad_norm"] == 0
    assert learner.num_steps == 1 and not learner.received_gradient
    with pytest.raises(ConfigError, match=r"has a gradient from the acts of this step \(image\)"):
        learner.step(*supervised(acts["image"]))
    with pytest.raises(ConfigError, match=r"has a gradient from the acts of this step \(text\)"):
        PolicyOptimizer(policy, optimizer(), 9, kinds=["text"]).step(*supervised(acts["text"]))


def test_a_run_that_had_a_gradient_is_never_rejected():
    """Whether a part has a gradient may depend on the row: a vision tower has none where there is no image."""
    policy = half("text")
    acts = {kind: [act for act in acts_of(played(policy)) if act.kind == kind] for kind in KINDS}
    learner = PolicyOptimizer(policy, optimizer(), 9)
    learner.step(*supervised(acts["image"]))
    assert learner.received_gradient
    moved = policy.trainable()["image"].detach().clone()
    assert learner.step(*supervised(acts["text"]))["grad_norm"] == 0
    assert not torch.equal(policy.trainable()["image"], moved)  # momentum moves on


# --- the optimizer


def test_the_gradient_is_clipped_to_its_norm(monkeypatch):
    monkeypatch.setattr(PolicyOptimizer, "free_gradients", lambda self: None)
    policy = fake()
    groups = played(policy)
    credit = credited(groups, lambda n: 1.0)
    _, free = updated(policy, groups, credit, optimizer={"max_grad_norm": 1e9})
    policy = fake()
    learner, stats = updated(policy, groups, credit, optimizer={"max_grad_norm": 0.01})
    assert stats["grad_norm"] == pytest.approx(free["grad_norm"]) and free["grad_norm"] > 0.02
    norm = torch.stack([p.grad.norm() for p in learner.parameters if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "total", "factors"),
    [
        ({}, 4, [1, 1, 1, 1, 1]),
        ({"warmup_steps": 3}, 5, [1 / 4, 2 / 4, 3 / 4, 1, 1]),
        ({"schedule": "linear"}, 4, [1, 3 / 4, 2 / 4, 1 / 4, 0]),
        ({"schedule": "cosine"}, 4, [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0]),
        ({"schedule": "linear", "warmup_steps": 2}, 6, [1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4, 0, 0]),
    ],
)
def test_warm_up_and_schedules(settings, total, factors):
    config = optimizer(learning_rate=0.5, **settings)
    assert [lr_multiplier(config, n, total) for n in range(len(factors))] == pytest.approx(factors, abs=1e-12)
    policy = fake()
    acts = acts_of(played(policy, P=1, G=1))
    learner = PolicyOptimizer(policy, config, total)
    rates = [learner.step(*supervised(acts))["learning_rate"] for _ in range(3)]
    assert rates == pytest.approx([0.5 * factor for factor in factors[:3]])
    assert learner.adamw.param_groups[0]["lr"] == pytest.approx(0.5 * factors[2])
    resumed = PolicyOptimizer(policy, config, total)
    resumed.num_steps = 3
    assert resumed.step(*supervised(acts))["learning_rate"] == pytest.approx(0.5 * factors[3])


def test_a_rate_of_zero_moves_nothing_and_a_rate_moves():
    policy = fake()
    acts = acts_of(played(policy, P=1, G=1))
    learner = PolicyOptimizer(policy, optimizer(learning_rate=0.1, schedule="linear"), 1)
    learner.step(*supervised(acts))
    moved = policy.trainable()["text"].detach().clone()
    learner.step(*supervised(acts))  # past the end of the schedule
    assert moved.abs().max() == pytest.approx(0.1, rel=1e-3)
    assert torch.equal(policy.trainable()["text"], moved)


def test_adamw_takes_its_betas_and_its_weight_decay():
    """Two steps by hand, from the gradients that the learner saw."""
    (b1, b2), decay, rate = (0.5, 0.6), 0.3, 0.1
    policy = fake()
    disturb(policy)  # a weight of 0 does not decay
    acts = acts_of(played(policy, P=1, G=2))
    weight = policy.trainable()["text"]
    learner = PolicyOptimizer(policy, optimizer(learning_rate=rate, betas=(b1, b2), weight_decay=decay), 10)
    expected, m, v = weight.detach().clone(), 0.0, 0.0
    for step in (1, 2):
        learner.step(*supervised(acts))
        m, v = b1 * m + (1 - b1) * weight.grad, b2 * v + (1 - b2) * weight.grad**2
        expected = expected * (1 - rate * decay) - rate * m / (1 - b1**step) / ((v / (1 - b2**step)).sqrt() + 1e-8)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-6)


# --- supervision


def row():
    from PIL import Image

    return Task(
        0, {"prompt": "p", "question": "q", "target": Image.new("RGB", (4, 4), (255, 85, 128)), "solution": "ab"}
    )


def test_the_likelihood_is_a_mean_over_the_actions_of_each_kind():
    policy = fake()
    acts = [
        act
        for t in encode_demonstrations(policy, generate_and_answer, [row()], {"image": "target", "answer": "solution"})
        for act in t.acts
    ]
    stats = PolicyOptimizer(policy, optimizer(learning_rate=0.5), 9).step(*supervised(acts, image=0.25))
    assert stats["text/nll"] == pytest.approx(math.log(257)) and stats["image/nll"] == pytest.approx(math.log(16))
    assert stats["loss"] == pytest.approx(math.log(257) + 0.25 * math.log(16))
    image = policy.trainable()["image"].grad
    assert image[7] == pytest.approx(-0.25 * 15 / 16) and image[0] == pytest.approx(0.25 / 16)
    learner = PolicyOptimizer(policy, optimizer(learning_rate=0.5), 9)
    for _ in range(10):
        stats = learner.step(*supervised(acts))
    assert stats["text/nll"] < 2.5 and stats["image/nll"] < 0.5


# --- minibatches


def test_minibatches_keep_groups_whole():
    owners = [0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 4]
    parts = minibatches(owners, 2, (0, 0, 0))
    assert sorted(n for part in parts for n in part) == list(range(11))
    assert not {owners[n] for n in parts[0]} & {owners[n] for n in parts[1]}
    assert all(part == sorted(part) for part in parts)
    assert minibatches(owners, 1, (0, 0, 0)) == [list(range(11))]
    assert len(minibatches(owners, 9, (0, 0, 0))) == 5  # never an empty one
    seen = {str(minibatches(owners, 2, (0, step, iteration))) for step in range(4) for iteration in range(2)}
    assert len(seen) > 3 and parts == minibatches(owners, 2, (0, 0, 0))


def test_one_rollout_feeds_several_optimizer_steps():
    policy = fake()
    groups = played(policy, P=4)
    passes = {"num_iterations": 3, "num_minibatches": 2}
    learner, stats = updated(policy, groups, algorithm=passes, optimizer={"learning_rate": 0.01})
    assert learner.num_steps == 6 == policy.version
    assert stats["text/train_rollout_logprob_diff_max"] == 0.0  # that of the first step, before the weights moved
    assert stats["image/ratio_max"] > 1.001 and stats["text/ratio_min"] < 0.999


def test_numbers_of_a_kind_that_the_first_minibatch_lacks_are_kept():
    policy = fake()
    groups = played(policy, P=2, G=1)
    order = [minibatches([0, 1], 2, (0, 0, 0))[part][0] for part in (0, 1)]
    kept = {groups[order[0]].trajectories[0].acts[0].kind: 0}
    acts = [a for a in groups[order[0]].trajectories[0].acts if a.kind in kept]
    acts += list(groups[order[1]].trajectories[0].acts)
    acts = sorted(acts, key=lambda act: [a is act for a in acts_of(groups)].index(True))
    credit = [ActWithAdvantage(act, 1.0) for act in acts]
    _, stats = updated(policy, groups, credit, algorithm={"num_minibatches": 2})
    assert {"text/ratio", "image/ratio"} <= stats.keys()


def test_replays_without_gradient():
    policy = fake()
    acts = acts_of(played(policy))
    for budget in (1, 10**9):
        replays = replay_frozen(policy, acts, budget, ("entropy",))
        assert all(isinstance(r, Replay) and not r.log_probs.requires_grad for r in replays)
        for act, replay in zip(acts, replays, strict=True):
            torch.testing.assert_close(act.log_probs, replay.log_probs)
