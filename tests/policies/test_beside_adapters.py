"""Parts of a unified model that train whole beside an adapter of its language model."""

import pytest
import torch

import motet
from motet.config import AlgorithmConfig, LoraConfig, OptimizerConfig, PolicyConfig
from motet.core.errors import ConfigError
from motet.core.trajectory import Sampling
from motet.training.batches import StepBatch
from motet.training.checkpoint import Progress, restore, save_checkpoint
from motet.training.optimizer_step import PolicyOptimizer
from tests.losses import losses
from tests.policies.test_unified import PLAIN, contexts, drawings
from tests.policies.unified import save

peft = pytest.importorskip("peft")
BESIDE = ("queries", "connector", "transformer")
LORA = LoraConfig(rank=2, alpha=4.0)


def beside_an_adapter(path, train=BESIDE, lora=LORA):
    return motet.load_policy(path, PolicyConfig(path=str(path), train=train, lora=lora, device="cpu"))


def kinds_of(policy):
    """Which parts train, adapters as such."""
    return {"adapter" if ".lora_" in name else name.split(".")[0] for name in policy.trainable()}


def taught(policy, folder):
    """One optimizer step over a drawing and a text, written as a checkpoint; the acts."""
    policy.freeze_reference()
    acts = [
        *policy.act(drawings(contexts()[:2]), PLAIN),
        *policy.act(drawings(contexts()[:1], "text"), Sampling(max_tokens=4)),
    ]
    config = AlgorithmConfig(scale_rewards="none", beta=0.1)
    with policy.reference():
        reference = policy.replay(acts, ("mean", "std"))
    learner = PolicyOptimizer(policy, OptimizerConfig(learning_rate=1e-2, param_group_lrs={"language_model": 2e-2}), 2)
    stats = learner.step(StepBatch(acts, [1.0, -1.0, 1.0], None, reference), losses(config))
    assert stats["denoising/kl"] == pytest.approx(0, abs=1e-6) and stats["text/kl"] == pytest.approx(0, abs=1e-6)
    return acts, save_checkpoint(folder, policy, learner, Progress(1, 0.0, {}), 1)


def test_parts_train_beside_an_adapter_of_the_language_model(tmp_path):
    """The bridge and the expert whole, the language model by its adapter: one step, a save, a resume, a next stage."""
    base = save(tmp_path / "base")
    policy = beside_an_adapter(base)
    assert kinds_of(policy) == {"adapter", *BESIDE}
    before = {name: p.detach().clone() for name, p in policy.trainable().items()}
    acts, folder = taught(policy, tmp_path / "run")
    moved = {name for name, p in policy.trainable().items() if bool((p != before[name]).any())}
    assert {"adapter" if ".lora_" in name else name.split(".")[0] for name in moved} == {"adapter", *BESIDE}
    scores = [replay.log_probs.detach() for replay in policy.replay(acts)]
    with policy.reference():  # the weights that the run began with
        for replay, act in zip(policy.replay(acts), acts, strict=True):
            torch.testing.assert_close(replay.log_probs, act.log_probs, rtol=0, atol=2e-5)

    resumed = beside_an_adapter(base)
    restore(folder, resumed, PolicyOptimizer(resumed, OptimizerConfig(), 2))
    goes_on = beside_an_adapter(folder)
    unchosen = beside_an_adapter(folder, PolicyConfig.model_fields["train"].default, None)
    frozen = beside_an_adapter(folder, lora=None)
    assert kinds_of(resumed) == kinds_of(goes_on) == {"adapter", *BESIDE}
    assert kinds_of(unchosen) == {"adapter"} and kinds_of(frozen) == set(BESIDE)
    frozen.freeze_reference()
    with frozen.reference():
        assert kinds_of(frozen) == set(BESIDE)
    for again in (resumed, goes_on, unchosen, frozen):
        for replay, score in zip(again.replay(acts), scores, strict=True):
            torch.testing.assert_close(replay.log_probs, score, rtol=0, atol=1e-5)


def test_a_part_that_has_an_adapter_is_not_named(tmp_path):
    base = save(tmp_path / "base")
    for name in ("language_model", "visual"):
        with pytest.raises(ConfigError, match=rf"policy.train names '{name}', which cannot train beside"):
            beside_an_adapter(base, ("queries", name))
