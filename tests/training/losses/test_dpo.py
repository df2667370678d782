"""DPO over acts: TRL's own loss on the same numbers, hand arithmetic for denoising, pairs of groups and of datasets."""

import json
import math
import warnings
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from motet.config import OptimizerConfig, parse_recipe
from motet.core.conversation import user
from motet.core.errors import ConfigError
from motet.core.protocols import Request
from motet.core.task import Task
from motet.core.trajectory import ActWithAdvantage, Sampling
from motet.scenarios import generate_and_answer
from motet.training.batches import StepBatch
from motet.training.frozen_replays import replay_frozen
from motet.training.losses import Sample, resolve_losses
from motet.training.losses.dpo import DPO, DPOSettings, dpo_loss
from motet.training.optimizer_step import PolicyOptimizer
from motet.training.policy_update import prepare_samples, update
from motet.training.rollout import rollout
from tests.flow_expert import FlowExpert
from tests.runs import TrainableFakePolicy, mapping, run_sft
from tests.training.test_denoising import acts_of, played

PREFERENCES = {"options": {}, "targets": {"answer": "good"}, "rejected": {"answer": "bad"}}
BASE = {"policy": {"path": "x"}, "run": {"steps": 1}, "rewards": [{"name": "format"}]}


def written(request):
    return "abcdefgh"[sum(request.key) % 7 :]


def sampled(policy, P=2, G=3):
    rows = [Task(n, {"prompt": f"p{n}", "question": f"q{n}"}) for n in range(P)]
    samplings = {"text": Sampling(max_tokens=9), "image": Sampling(temperature=2.0)}
    return rollout(policy, generate_and_answer, rows, G, samplings=samplings, seed=0, step=0)


def disturb(policy, size=0.3):
    generator = torch.Generator().manual_seed(1)
    for parameter in policy.trainable().values():
        parameter.data += size * torch.randn(parameter.shape, generator=generator)


def dpo(kind="text", **options):
    return DPO(DPOSettings(**options), kind)


def test_the_loss_of_a_margin_by_hand():
    margins = torch.tensor([0.0, 1.0, -2.0])
    torch.testing.assert_close(dpo_loss(margins), torch.tensor([math.log(1 + math.exp(-m)) for m in (0.0, 1.0, -2.0)]))
    smooth = [0.9 * math.log(1 + math.exp(-m)) + 0.1 * math.log(1 + math.exp(m)) for m in (0.0, 1.0, -2.0)]
    torch.testing.assert_close(dpo_loss(margins, 0.1), torch.tensor(smooth))


# --- tokens


def trl_loss(log_probs, reference, lengths, beta):
    """TRL's own `DPOTrainer._compute_loss` on per-token log-probs: chosen sequences first, then rejected ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trl = pytest.importorskip("trl")
    width = max(lengths) + 1
    mask, logps, refs = torch.zeros(len(lengths), width), [], []
    for row, (own, ref, length) in enumerate(zip(log_probs, reference, lengths, strict=True)):
        mask[row, 1 : length + 1] = 1
        logps.append(torch.nn.functional.pad(own, (0, width - 1 - length)))
        refs.append(ref.sum())
    zeros = torch.zeros(len(lengths), width - 1)
    outputs = SimpleNamespace(
        log_probs=torch.stack(logps), entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(), entropies=zeros
    )
    same = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=same, aux_loss_enabled=False, ld_alpha=None, beta=beta,
        precompute_ref_logps=True, f_divergence_type="reverse_kl", loss_types=["sigmoid"], loss_weights=[1.0],
        label_smoothing=0.0, use_weighting=False, _metrics={"train": defaultdict(list)}, _total_train_tokens=0,
        _tp_size=1,
    )  # fmt: skip
    half = len(lengths) // 2
    inputs = {
        "input_ids": torch.zeros(len(lengths), width, dtype=torch.long), "attention_mask": mask.long(),
        "completion_mask": mask.long(), "ref_chosen_logps": torch.stack(refs[:half]),
        "ref_rejected_logps": torch.stack(refs[half:]),
    }  # fmt: skip
    loss = trl.DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, False)
    return loss, {name: values[-1] for name, values in trainer._metrics["train"].items()}


def test_it_is_trls_loss_of_tokens():
    """Loss, gradient by the log-probs, and what is reported; the pairs in one micro-batch and in two."""
    policy = TrainableFakePolicy(writes=written)
    acts = [act for act in acts_of(sampled(policy)) if act.kind == "text"][:4]
    lengths = [len(act.ids) for act in acts]
    assert len(set(lengths)) > 1
    policy.freeze_reference()
    disturb(policy)
    with policy.reference():
        reference = replay_frozen(policy, acts, 10**9)
    batch = StepBatch(acts, [1.0, -1.0, 1.0, -1.0], None, reference, units=[0, 0, 1, 1])
    results = []
    for budget in (10**9, 1):
        policy.trainable()["text"].grad = None
        config = OptimizerConfig(learning_rate=1e-30, max_grad_norm=1e9, max_tokens_per_microbatch=budget)
        stats = PolicyOptimizer(policy, config, 1).step(batch, {"text": dpo(beta=0.3)})
        results.append((stats, policy.trainable()["text"].grad.clone()))
    log_probs = [replay.log_probs for replay in policy.replay(acts)]
    order = [0, 2, 1, 3]  # chosen, then rejected
    loss, reported = trl_loss(
        [log_probs[n] for n in order], [reference[n].log_probs for n in order], [lengths[n] for n in order], 0.3
    )
    (gradient,) = torch.autograd.grad(loss, policy.trainable()["text"])
    assert gradient.abs().max() > 1e-3
    for stats, ours in results:
        assert stats["loss"] == pytest.approx(loss.item(), rel=1e-5)
        torch.testing.assert_close(ours, gradient, rtol=1e-4, atol=1e-7)
        for name, theirs in {"margin": "margins", "accuracy": "accuracies", "reward_chosen": "chosen"}.items():
            assert stats[f"text/{name}"] == pytest.approx(reported[f"rewards/{theirs}"], rel=1e-4)


# --- denoising


def test_of_denoising_it_is_diffusion_dpo_by_hand():
    """Errors of both images under policy and reference at one noise level, with one noise."""
    policy = FlowExpert()
    policy.freeze_reference()
    key, images = (3, 1), [Image.new("L", (4, 4), level) for level in (220, 30)]
    acts = policy.encode_targets([Request("denoising", "d", user("p"), key)] * 2, images)
    with torch.no_grad():
        policy.velocity[2].bias += 0.2
    with policy.reference():
        reference = replay_frozen(policy, acts, 10**9)
    loss = {"denoising": dpo("denoising", beta=7.0)}
    stats = PolicyOptimizer(policy, OptimizerConfig(learning_rate=1e-30), 1).step(
        StepBatch(acts, [1.0, -1.0], None, reference, units=[0, 0]), loss
    )
    errors = {}
    for name, act in zip(("chosen", "rejected"), acts, strict=True):
        sigma, noisy, clean = act.times[0], act.states[0], act.states[1]
        noise = (noisy - (1 - sigma) * clean) / sigma
        for who in ("policy", "reference"):
            if who == "reference":
                with policy.reference():
                    velocity = policy._velocity(noisy[None], sigma[None], [act.encoding])[0]
            else:
                velocity = policy._velocity(noisy[None], sigma[None], [act.encoding])[0].detach()
            errors[name, who] = float(((velocity - (noise - clean)) ** 2).mean())
    assert float(acts[0].times[0]) == float(acts[1].times[0])
    inside = (errors["chosen", "policy"] - errors["chosen", "reference"]) - (
        errors["rejected", "policy"] - errors["rejected", "reference"]
    )
    assert abs(inside) > 1e-3
    assert stats["loss"] == pytest.approx(math.log(1 + math.exp(7.0 * inside)), rel=1e-4)


# --- pairs


def test_pairs_of_a_group_are_its_best_and_its_worst():
    """Per act name; groups without a difference give none; both members share a position."""
    policy = TrainableFakePolicy(writes=written)
    groups = sampled(policy)
    advantages = {(0, "image"): (0.5, -1.0, 0.5), (0, "answer"): (0.0, 0.0, 0.0), (1, "answer"): (-2.0, 0.0, 2.0)}
    assigned = [
        ActWithAdvantage(act, advantages.get((p, act.name), (0.0, 0.0, 0.0))[g])
        for p, group in enumerate(groups)
        for g, trajectory in enumerate(group.trajectories)
        for act in trajectory.acts
    ]
    losses = {kind: dpo(kind) for kind in ("text", "image")}
    made = prepare_samples(groups, assigned, losses, (0, 0))
    assert [(one.group, one.act.name, one.generation) for one in made] == [
        (0, "image", 0), (0, "image", 1), (1, "answer", 2), (1, "answer", 0)
    ]  # fmt: skip
    assert made[0].position == made[1].position != made[2].position == made[3].position


def test_sampled_images_are_noised_alike():
    policy = FlowExpert()
    acts = acts_of(played(policy, P=1, G=2))
    samples = [Sample(act, a, 0, g, g, (0, 0, g)) for g, (act, a) in enumerate(zip(acts, (1.0, -1.0), strict=True))]
    chosen, rejected = dpo("denoising").prepare(samples)
    assert torch.equal(chosen.act.times, rejected.act.times) and chosen.act.log_probs is None
    sigma = chosen.act.times[0]
    noises = [(one.act.states[0] - (1 - sigma) * one.act.states[1]) / sigma for one in (chosen, rejected)]
    torch.testing.assert_close(*noises, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(chosen.act.states[1], acts[0].states[-1])


def test_a_kl_beside_dpo_is_rejected():
    recipe = parse_recipe(BASE, ["algorithm.loss=dpo", "algorithm.beta=0.1"])
    with pytest.raises(ConfigError, match=r"algorithm\.beta: is 0\.1, but the loss of text acts has no KL"):
        resolve_losses(recipe, ["text"])


# --- training


@pytest.mark.slow
def test_brighter_images_are_preferred_after_training():
    """Online: the best and the worst of each sampled group. The margin rises, and so does the brightness."""
    overrides = ["algorithm.loss={name: dpo, beta: 2.0}", "optimizer.learning_rate=0.003"]
    recipe, policy = parse_recipe(BASE, overrides), FlowExpert()
    policy.freeze_reference()
    optimizer = PolicyOptimizer(policy, recipe.optimizer, 80)
    curve, margins = [], []
    for step in range(80):
        groups = played(policy, P=4, G=8, step=step)
        values = [float(act.states[-1].mean()) for act in acts_of(groups)]
        assigned = [ActWithAdvantage(act, value) for act, value in zip(acts_of(groups), values, strict=True)]
        margins.append(update(policy, optimizer, groups, assigned, recipe, step)["denoising/margin"])
        curve.append(sum(values) / len(values))
    assert margins[0] == 0.0 and sum(margins[-10:]) / 10 > 0.02
    assert sum(curve[-10:]) / 10 > sum(curve[:10]) / 10 + 0.1


def test_preferences_of_a_dataset_are_learned(tiny_checkpoint, tmp_path):
    """`motet sft` on rows with a chosen and a rejected answer: the margin rises from 0, and resuming is exact."""
    rows = [{"prompt": "p", "question": f"which {n}?", "good": "<answer> red", "bad": "blue dots"} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    content = mapping(
        tiny_checkpoint,
        scenario="answer",
        data={**PREFERENCES, "source": str(tmp_path / "rows.jsonl")},
        algorithm={"loss": {"name": "dpo", "beta": 0.5}},
        run={"steps": 6},
    )
    content["rewards"] = []
    seen = run_sft(content, tmp_path / "whole")
    assert seen[0]["text/margin"] == pytest.approx(0.0, abs=1e-5)
    assert seen[-1]["text/margin"] > 0.5 and seen[-1]["text/accuracy"] == 1.0
    first = run_sft(content, tmp_path / "parts", stop_after=3)
    assert [one["loss"] for one in first + run_sft(content, tmp_path / "parts")] == [one["loss"] for one in seen]


def test_rejected_targets_need_a_loss_of_pairs(tiny_checkpoint, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "good": "a", "bad": "b"}\n')
    data = {**PREFERENCES, "source": str(tmp_path / "rows.jsonl")}
    content = mapping(tiny_checkpoint, scenario="answer", data=data)
    content["rewards"] = []
    with pytest.raises(ConfigError, match="gives pairs of acts, but the loss of text acts does"):
        run_sft(content, tmp_path / "run")
    content["data"]["rejected"] = {"reply": "bad"}
    with pytest.raises(ConfigError, match="rejected names the act 'reply'"):
        run_sft(content, tmp_path / "run")
