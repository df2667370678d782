"""FSDP2 in one process: the weights, moments and metrics of a run without it, bit for bit; and its known traps."""

from pathlib import Path

import pytest
import torch
from torch.distributed.fsdp import FSDPModule

from motet.config import LoraConfig
from motet.core.errors import ConfigError
from motet.distributed.fully_sharded import FullySharded
from motet.distributed.parallel import Parallel
from motet.distributed.passes import agree_on_passes
from motet.distributed.processes import Processes
from motet.policies.same_passes import same_passes
from motet.policies.shards import full_data, is_sharded, local_data
from motet.policies.trainable import mix_into_reference, reference_weights
from tests.distributed.mixed_run import acts_of, mixed_policy, roll_out, train
from tests.runs import TrainableFakePolicy, save_tiny_janus

pytestmark = pytest.mark.usefixtures("process_group")


@pytest.fixture(scope="module")
def janus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_janus(tmp_path_factory.mktemp("janus"))


class OneOfTwo(Processes):
    """A process that takes itself for one of two, so that layers are units; the other one has and says the same."""

    size = 2

    def all_gather(self, value):
        return [value, value]


def test_one_process_is_bitwise_a_run_without_sharding(janus):
    plain, sharded = mixed_policy(janus), mixed_policy(janus)
    optimizer, metrics = train(plain, Parallel(), 2)
    other, metrics_sharded = train(sharded, FullySharded(), 2)
    assert metrics_sharded == metrics and metrics[1]["grad_norm"] > 0.5  # clipping is at work
    for name, parameter in plain.trainable().items():
        theirs = sharded.trainable()[name]
        assert is_sharded(theirs) and torch.equal(full_data(theirs), parameter), name
        state, sharded_state = optimizer.adamw.state[parameter], other.adamw.state[theirs]
        assert state.keys() == sharded_state.keys(), name
        for key, value in state.items():
            assert torch.equal(full_data(sharded_state[key]), value), (name, key)


def gradients(policy, parallel, kinds):
    """Of the log-probs of acts of these kinds."""
    parallel.prepare(policy)
    with parallel.full_weights(policy):
        acts = [act for act in acts_of(roll_out(policy, [0, 1], 0)) if act.kind in kinds]
    sum(replay.log_probs.sum() for replay in parallel.replay(policy, acts)).backward()
    parallel.reduce_gradients([])
    return {name: full_data(p.grad) for name, p in policy.trainable().items() if p.grad is not None}


def checkpointed(janus):
    policy = mixed_policy(janus)
    policy.enable_gradient_checkpointing()
    return policy


def under_autocast(janus):
    return mixed_policy(janus, dtype="bfloat16")


def with_adapters(janus):
    """New ones, beside weights that are stored in bfloat16."""
    policy = mixed_policy(janus, [], dtype="bfloat16")
    policy.text_policy.model.to(torch.bfloat16)
    policy.add_lora(LoraConfig(rank=2))
    return policy


@pytest.mark.parametrize("made", [mixed_policy, checkpointed, under_autocast, with_adapters])
def test_units_change_nothing_for_a_language_model(janus, made):
    plain, sharded, kinds = made(janus), made(janus), ("text", "image")
    expected = gradients(plain, Parallel(), kinds)
    found = gradients(sharded, FullySharded(OneOfTwo()), kinds)
    assert isinstance(sharded.text_policy.adapter.language_model.layers[1], FSDPModule)
    assert len(expected) > 10
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("made", [mixed_policy, checkpointed])
def test_units_of_a_denoiser_change_rounding_alone(janus, made):
    expected, found = (gradients(made(janus), p, ("denoising",)) for p in (Parallel(), FullySharded(OneOfTwo())))
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_the_reference_of_sharded_weights_answers_with_its_own(janus):
    """Assigning to `.data`, as for whole weights, would leave what FSDP2 gathers from untouched, and the KL zero."""
    policy, parallel = mixed_policy(janus), FullySharded(OneOfTwo())
    parallel.prepare(policy)
    policy.freeze_reference()
    with parallel.full_weights(policy):
        acts = acts_of(roll_out(policy, [0], 0))

    def log_probs():
        with torch.no_grad():
            return torch.cat([parallel.replay(policy, [act])[0].log_probs for act in acts])

    start = log_probs()
    with torch.no_grad():
        for parameter in policy.trainable().values():
            local_data(parameter).mul_(1.1)
    moved = log_probs()
    assert (moved - start).abs().max() > 0.01
    with policy.reference():
        assert torch.equal(log_probs(), start)
        with policy.reference():  # a reward inside
            assert torch.equal(log_probs(), start)
    assert torch.equal(log_probs(), moved)
    before = {name: full_data(weight) for name, weight in reference_weights(policy).items()}
    mix_into_reference(policy, 0.25)
    for name, weight in reference_weights(policy).items():
        present = full_data(policy.trainable()[name])
        torch.testing.assert_close(full_data(weight), 0.75 * before[name] + 0.25 * present)
    assert torch.equal(log_probs(), moved)


def test_rewards_ask_the_whole_reference_during_a_rollout(janus):
    policy, parallel = mixed_policy(janus), FullySharded(OneOfTwo())
    parallel.gathers_reference = True  # as setup finds of the rewards
    parallel.prepare(policy)
    policy.freeze_reference()
    with parallel.full_weights(policy):
        acts = acts_of(roll_out(policy, [0], 0))
        start = policy.log_probs(acts)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            local_data(parameter).mul_(1.1)
    with parallel.full_weights(policy):
        with parallel.full_weights(policy):  # an evaluation inside
            moved = policy.log_probs(acts)
        with policy.reference():
            asked = policy.log_probs(acts)
        again = policy.log_probs(acts)
    assert not torch.equal(torch.cat(moved), torch.cat(start))
    assert torch.equal(torch.cat(asked), torch.cat(start)) and torch.equal(torch.cat(again), torch.cat(moved))
    assert all(is_sharded(weight) for weight in reference_weights(policy).values())


def test_no_snapshot_outlives_the_weights_that_it_shares(janus):
    policy, parallel = mixed_policy(janus), FullySharded()
    parallel.prepare(policy)
    with parallel.full_weights(policy):
        roll_out(policy, [0], 0)
        assert policy.text_policy._sampler is not None
    assert policy.text_policy._sampler is None


def passes_of(module):
    """Counts its forward passes."""
    counts = []
    module.register_forward_hook(lambda *_: counts.append(1))
    return counts


@pytest.mark.parametrize("other", [(False, True), (True, False), (True, True)], ids=["wants none", "has none", "alike"])
def test_prompts_are_shared_where_all_processes_share_them(janus, other):
    """Sharing takes two passes. A process that ran one while another runs two would wait for ever."""
    policy = mixed_policy(janus)
    acts = [act for act in acts_of(roll_out(policy, [0], 0)) if act.kind == "text"]
    counts = passes_of(policy.text_policy.adapter.language_model.layers[0])
    alone = policy.log_probs(acts)
    assert len(counts) == 2
    with same_passes(lambda own: [own, other]):
        together = policy.log_probs(acts)
    assert len(counts) == 2 + (2 if other == (True, True) else 1)
    torch.testing.assert_close(together, alone)


def test_a_denoiser_runs_as_often_as_in_the_process_with_most_shapes(janus):
    policy = mixed_policy(janus)
    acts = [act for act in acts_of(roll_out(policy, [0], 0)) if act.kind == "denoising"]
    counts = passes_of(policy.image_policy.parts["transformer"])
    alone = policy.log_probs(acts)
    with same_passes(lambda own: [own, 3]):
        together = policy.log_probs(acts)
    assert len(counts) == 1 + 3 and torch.equal(torch.cat(together), torch.cat(alone))


def test_a_parameter_that_only_another_process_uses_takes_part(janus):
    """Without images the vision tower has no gradient here: the shapes of the sums would differ between processes."""
    policy, processes = mixed_policy(janus), OneOfTwo()
    parallel = FullySharded(processes)
    parallel.prepare(policy)
    vision = policy.parts["vision_model"].embeddings.patch_embedding
    with parallel.full_weights(policy):
        acts = [act for act in acts_of(roll_out(policy, [0], 0)) if act.kind == "text"]
    parallel.replay(policy, acts)[0].log_probs.sum().backward()
    assert full_data(vision.weight.grad).eq(0).all()
    parallel.reduce_gradients([])
    assert vision.weight.grad is None  # the other process did not use it either


def test_a_process_without_gradient_joins_the_backward_pass(janus):
    """Here the acts of this process have no gradient, but those of the other have."""
    policy, processes = mixed_policy(janus, ["vision_model"]), OneOfTwo()
    parallel = FullySharded(processes)
    parallel.prepare(policy)
    with parallel.full_weights(policy):
        acts = [act for act in acts_of(roll_out(policy, [0], 0)) if act.kind == "text"]
    assert not parallel.replay(policy, acts)[0].log_probs.requires_grad
    processes.all_gather = lambda own: [own, True if isinstance(own, bool) else own]
    assert parallel.replay(policy, acts)[0].log_probs.requires_grad


def test_the_norm_is_that_of_all_shards(janus):
    policy, processes = mixed_policy(janus, ["lm_head"]), OneOfTwo()
    parallel = FullySharded(processes)
    parallel.prepare(policy)
    (head,) = policy.trainable().values()
    head.grad = torch.full_like(head, 2.0)
    processes.all_reduce_ = lambda tensors: [tensor.mul_(2) for tensor in tensors]
    expected = 2.0 * (2 * head.numel()) ** 0.5
    assert float(parallel.clip_gradient([head], 1.0)) == pytest.approx(expected)
    assert full_data(head.grad).mean() == pytest.approx(2.0 / expected)
    plain = torch.nn.Parameter(torch.ones(3))
    plain.grad = torch.ones(3)
    with pytest.raises(RuntimeError, match="not sharded"):
        parallel.clip_gradient([head, plain], 1.0)


def test_a_policy_that_does_not_say_how_is_rejected():
    with pytest.raises(ConfigError, match="shard_units"):
        FullySharded().prepare(TrainableFakePolicy())


def test_micro_batches_are_the_same_kinds_in_the_same_number_everywhere(janus):
    policy = mixed_policy(janus)
    acts = acts_of(roll_out(policy, [0, 1], 0))
    kinds = [policy.pass_key(act) for act in acts]
    own = [[n for n in range(len(acts)) if n % 2 == 0], [n for n in range(len(acts)) if n % 2]]
    processes = OneOfTwo()
    processes.all_gather = lambda value: (
        [value, {"denoising": 1, "language": 3}] if isinstance(value, dict) else [value]
    )
    passes = agree_on_passes(processes, policy, acts, own)
    keys = [{policy.pass_key(act) for act in members} for members, _ in passes]
    assert (
        keys == [{"denoising"}] * len([m for m in own if any(kinds[n] == "denoising" for n in m)]) + [{"language"}] * 3
    )
    weighted = [n for _, members in passes for n in members or ()]
    assert sorted(weighted) == list(range(len(acts)))
    assert [members for _, members in passes].count(None) == 1 and len(passes[-1][0]) == 1
