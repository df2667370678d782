"""Losses of a part of the actions: texts that were cut off, and actions of low entropy. Denominators of the whole step.

Also which optimizer steps move the reference."""

import math

import pytest
import torch

from motet.config import OptimizerConfig, parse_recipe
from motet.core.protocols import Replay
from motet.core.task import Task
from motet.core.trajectory import ActWithAdvantage, Sampling
from motet.scenarios import generate_and_answer
from motet.training.batches import HighEntropy, StepBatch, count_by_kind
from motet.training.frozen_replays import replay_frozen
from motet.training.optimizer_step import PolicyOptimizer
from motet.training.policy_update import update
from motet.training.rollout import rollout
from tests.losses import algorithm, algorithm_section, losses
from tests.runs import TrainableFakePolicy


@pytest.fixture(autouse=True)
def disturbed_weights_are_no_error(monkeypatch):
    """These steps begin with weights that did not sample the acts, so that ratios are not 1."""
    monkeypatch.setattr("motet.training.rollout_gate.MAX_LOGPROB_DIFF", math.inf)


class Uneven(TrainableFakePolicy):
    """A fake whose texts differ in length, and whose entropies differ by action."""

    def __init__(self, **settings):
        super().__init__(writes=lambda request: "w" * (1 + sum(request.key) % 9), **settings)
        self.replayed = []

    def replay(self, acts, needs=()):
        self.replayed += acts
        made = super().replay(acts, needs)
        if "entropy" not in needs:
            return made
        return [
            Replay(r.log_probs, {"entropy": entropy_of(a) * r.extras["entropy"]})
            for a, r in zip(acts, made, strict=True)
        ]


def entropy_of(act):
    """Between 0 and 1, by the action's place and the act."""
    return torch.sin(torch.arange(act.num_actions) * 1.7 + act.num_actions).abs()


def played(policy, max_tokens=6):
    rows = [Task(n, {"prompt": f"p{n}", "question": f"q{n}"}) for n in range(3)]
    samplings = {"text": Sampling(max_tokens=max_tokens), "image": Sampling(temperature=2.0)}
    return rollout(policy, generate_and_answer, rows, 3, samplings=samplings, seed=0, step=0)


def credited(groups):
    acts = [act for group in groups for t in group.trajectories for act in t.acts]
    return [ActWithAdvantage(act, math.sin(3.0 * n)) for n, act in enumerate(acts)]


def disturbed(seed=1):
    policy = Uneven()
    policy.freeze_reference()
    generator = torch.Generator().manual_seed(seed)
    for parameter in policy.trainable().values():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return policy


def trained(groups, budget=10**6, **changes):
    """The policy after one rollout's update, its numbers, and how its weights moved."""
    policy = disturbed()
    settings = {"scale_rewards": "none", **changes}
    recipe = parse_recipe(
        {
            "policy": {"path": "x"}, "run": {"steps": 9, "prompts_per_step": 3}, "rewards": [{"name": "format"}],
            "algorithm": algorithm_section(**settings),
            "optimizer": {"learning_rate": 0.01, "max_tokens_per_microbatch": budget},
            "sampling": {"text": {"max_tokens": 6}},
        }
    )  # fmt: skip
    learner = PolicyOptimizer(policy, recipe.optimizer, 9)
    before = {name: p.detach().clone() for name, p in policy.trainable().items()}
    gradients = []
    step = learner.adamw.step

    def remember():
        gradients.append({name: p.grad.clone() for name, p in policy.trainable().items() if p.grad is not None})
        step()

    learner.adamw.step = remember
    stats = update(policy, learner, groups, credited(groups), recipe, 0)
    return policy, learner, stats, gradients, before


def same(one, other, rtol=1e-5):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=rtol, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


def by_hand(groups, config, masked=(), high_entropy=None, masked_actions=0):
    """The gradient of one optimizer step over the acts that are not masked, with the counts of all."""
    policy, credit = disturbed(), credited(groups)
    kept = [n for n in range(len(credit)) if n not in masked]
    acts = [credit[n].act for n in kept]
    reference = None
    if config.beta:
        with policy.reference():
            reference = replay_frozen(policy, acts, 10**9)
    counts = {kind: (number, actions) for kind, (number, actions) in count_by_kind([c.act for c in credit]).items()}
    counts["text"] = (counts["text"][0], counts["text"][1] - masked_actions)
    batch = StepBatch(
        acts, [credit[n].advantage for n in kept], [Replay(act.log_probs) for act in acts], reference,
        high_entropy=high_entropy, counts=counts, max_actions={"text": 6, "image": 4},
    )  # fmt: skip
    PolicyOptimizer(policy, OptimizerConfig(max_grad_norm=1.0), 9).step(batch, losses(config))
    return {name: p.grad for name, p in policy.trainable().items() if p.grad is not None}


# --- texts that were cut off


@pytest.fixture
def groups():
    return played(Uneven())


def cut_off(groups):
    return {n for n, one in enumerate(credited(groups)) if one.act.kind == "text" and not one.act.finished}


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo", "sapo"])
def test_cut_off_texts_are_counted_as_acts_and_not_in_actions(groups, loss_type):
    """TRL's rule: they are zeros in a mean over acts, and absent from a mean over tokens. Neither KL nor entropy."""
    masked = cut_off(groups)
    assert 0 < len(masked) < 9
    hidden = sum(credited(groups)[n].act.num_actions for n in masked)
    settings = {"loss": loss_type, "beta": 0.2, "entropy_bonus": 0.1, "scale_rewards": "none"}
    policy, _, _, (gradient,), _ = trained(groups, mask_truncated_completions=True, **settings)
    same(gradient, by_hand(groups, algorithm(**settings), masked, masked_actions=hidden))
    assert not {id(credited(groups)[n].act) for n in masked} & {id(act) for act in policy.replayed}
    _, _, _, (whole,), _ = trained(groups, **settings)
    assert not torch.allclose(whole["text"], gradient["text"], rtol=1e-2)
    same({"image": whole["image"]}, {"image": gradient["image"]}, rtol=0.2)  # but for the clipped norm


def test_a_rollout_of_cut_off_texts_alone_is_skipped_and_a_minibatch_of_them_too(groups):
    cut = played(Uneven(), max_tokens=1)
    texts = [one for one in credited(cut) if one.act.kind == "text"]
    assert not any(one.act.finished for one in texts)
    policy, learner, stats, _, before = trained(cut, mask_truncated_completions=True)
    assert learner.num_steps == 1 and "image/loss" in stats and "text/loss" not in stats
    assert torch.equal(policy.trainable()["text"], before["text"])
    recipe = parse_recipe(
        {
            "policy": {"path": "x"}, "run": {"steps": 9, "prompts_per_step": 3}, "rewards": [{"name": "format"}],
            "algorithm": algorithm_section(mask_truncated_completions=True),
        }
    )  # fmt: skip
    learner = PolicyOptimizer(policy, recipe.optimizer, 9)
    policy.version = 0  # that of the rollout, which is used twice here
    assert update(policy, learner, cut, texts, recipe, 0) == {"skipped": 1.0} and learner.num_steps == 0
    images = [one for one in credited(cut)[:6] if one.act.kind == "image"]  # of the first group alone
    made = recipe.model_copy(update={"algorithm": recipe.algorithm.model_copy(update={"num_minibatches": 3})})
    stats = update(policy, learner, cut, [*images, *texts[3:]], made, 0)
    assert learner.num_steps == 1 and math.isfinite(stats["loss"])


@pytest.mark.parametrize("budget", [1, 20, 60])
@pytest.mark.parametrize("options", [{"mask_truncated_completions": True}, {"top_entropy_quantile": 0.3}])
def test_cutting_the_step_into_micro_batches_changes_nothing(groups, options, budget):
    settings = {"loss": "dapo", "beta": 0.1, "entropy_bonus": 0.1, **options}
    _, _, whole_stats, (whole,), _ = trained(groups, **settings)
    _, _, stats, (parts,), _ = trained(groups, budget, **settings)
    same(whole, parts)
    assert stats == pytest.approx(whole_stats, rel=1e-4, abs=1e-6)


# --- actions of high entropy


@pytest.mark.parametrize("entropy_bonus", [0.0, 0.1])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_only_the_actions_of_the_highest_entropy_keep_their_policy_loss(groups, share, entropy_bonus):
    """Of each kind by itself, over the whole step; the KL stays that of all actions, and so do the counts."""
    acts = [one.act for one in credited(groups)]
    masks, counts = [], {}
    for kind in ("text", "image"):
        every = torch.cat([entropy_of(act) for act in acts if act.kind == kind])
        threshold = torch.quantile(every, 1 - share) - 1e-5
        counts[kind] = int((every >= threshold).sum())
        masks.append({id(act): entropy_of(act) >= threshold for act in acts if act.kind == kind})
    chosen = HighEntropy([(masks[0] | masks[1])[id(act)] for act in acts], counts)
    settings = {"beta": 0.2, "entropy_bonus": entropy_bonus, "scale_rewards": "none"}
    _, _, _, (gradient,), _ = trained(groups, top_entropy_quantile=share, **settings)
    same(gradient, by_hand(groups, algorithm(**settings), high_entropy=chosen))
    _, _, _, (whole,), _ = trained(groups, **settings)
    assert not torch.allclose(whole["text"], gradient["text"], rtol=1e-2)


def test_acts_without_advantage_take_part_in_the_quantile(groups):
    """They are not replayed for the loss, but their actions are among those that the quantile is of."""
    policy, _, _, _, _ = trained(groups, top_entropy_quantile=0.5)
    assert {id(act) for act in policy.replayed} == {id(one.act) for one in credited(groups)}


# --- the reference


@pytest.mark.parametrize(("every", "alpha", "moves"), [(2, 0.25, True), (1, 1.0, True), (3, 0.25, False)])
def test_the_reference_moves_every_so_many_optimizer_steps(groups, every, alpha, moves):
    """Two optimizer steps: after the second alpha of the weights are mixed in; `every: 3` comes too late."""
    sync = {"reference_sync": {"every": every, "alpha": alpha}}
    policy, learner, _, _, _ = trained(groups, beta=0.1, num_iterations=2, **sync)
    start = Uneven().trainable()
    assert learner.num_steps == 2 and learner.reference_moved == moves
    for name, parameter in policy.trainable().items():
        expected = alpha * parameter.detach() + (1 - alpha) * start[name].detach() if moves else start[name].detach()
        torch.testing.assert_close(policy.start[name], expected)
    plain, learner, _, _, _ = trained(groups, beta=0.1, num_iterations=2)
    assert not learner.reference_moved and torch.equal(plain.start["text"], start["text"])
