"""Our advantages, loss and gradient against TRL's own code: a real GRPOTrainer and RLOOTrainer around a tiny Llama.

`GRPOTrainer._compute_loss` is called on hand-made completions, and `_generate_and_score_completions` with rewards that
the test chooses; no code of TRL is copied or stubbed. Our side packs the same completions on one axis, scores them with
`hidden_log_probs`, and sums weighted per-action losses. If an upgrade of TRL turns this file red, read what changed:
the names in motet's recipes are TRL's, and must go on meaning the same.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl.trainer.callbacks import SyncRefModelCallback

    GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer = trl.GRPOConfig, trl.GRPOTrainer, trl.RLOOConfig, trl.RLOOTrainer

from motet.numerics.advantages import STD_EPSILON, Scale, batch_advantages, normalize_separately
from motet.numerics.aggregation import StepCounts
from motet.numerics.entropies import highest_entropies
from motet.numerics.kl import kl
from motet.numerics.logprobs import hidden_log_probs
from motet.numerics.ratios import ImportanceSamplingLevel, importance_ratios, rollout_is_weights
from motet.policies.trainable import mix_into_reference
from motet.training.losses import LOSSES
from motet.training.losses.policy_gradient import Actions
from tests.runs import TrainableFakePolicy

pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]

LOSS_TYPES = ("grpo", "bnpo", "dapo", "dr_grpo", "luspo")
LEVELS: tuple[ImportanceSamplingLevel, ...] = ("token", "sequence")
EPSILON, EPSILON_HIGH, TEMPERATURE, MAX_TOKENS, G = 0.2, 0.28, 0.9, 5, 4
CLIP = {"epsilon": EPSILON, "epsilon_high": EPSILON_HIGH}
PROMPT_LENGTHS, COMPLETION_LENGTHS = (3, 1, 2, 3, 2, 1, 3, 2), (5, 1, 3, 4, 2, 5, 1, 3)


# --- TRL's side -----------------------------------------------------------------------------------------------------


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    words = ["<pad>", "<eos>", "<bos>", *"abcdefghijklm"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>")


def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, initializer_range=0.5, pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).float()


def build(trainer: Any, config: Any, folder: Path, rewards: list[list[float | None]], **options: Any) -> Any:
    """A real trainer. `rewards[k]` is what its k-th reward function returns."""

    def reward(k: int) -> Any:
        def function(completions: list[Any], **columns: Any) -> list[float | None]:
            return rewards[k]

        function.__name__ = f"reward_{k}"
        return function

    args = config(
        output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", temperature=TEMPERATURE,
        num_generations=G, max_completion_length=MAX_TOKENS, per_device_train_batch_size=4,
        gradient_accumulation_steps=2, beta=0.0, **options,
    )  # fmt: skip
    functions, rows = [reward(k) for k in range(len(rewards))], Dataset.from_dict({"prompt": ["a b"] * 8})
    built = trainer(tiny_llama(), functions, args, train_dataset=rows, processing_class=tiny_tokenizer())
    built.model.train()
    return built


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build(GRPOTrainer, GRPOConfig, tmp_path_factory.mktemp("trl"), [[0.0] * 8])


@pytest.fixture
def trainer(shared: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The shared trainer, set to one micro-batch per optimizer step; what a test sets is undone afterwards."""
    settings = {"epsilon_low": EPSILON, "epsilon_high": EPSILON_HIGH, "current_gradient_accumulation_steps": 1}
    for name, value in settings.items():
        monkeypatch.setattr(shared, name, value, raising=False)
    monkeypatch.setattr(shared.args, "steps_per_generation", 1)
    monkeypatch.setattr(shared.args, "use_bias_correction_kl", False)
    shared._metrics["train"].clear()
    return shared


def make_inputs() -> dict[str, Tensor]:
    """Eight completions in TRL's layout: prompts padded left, completions padded right."""
    generator = torch.Generator().manual_seed(1)
    rows, prompt_width, width = len(COMPLETION_LENGTHS), max(PROMPT_LENGTHS), max(COMPLETION_LENGTHS)
    prompt_mask = torch.stack([(torch.arange(prompt_width) >= prompt_width - n).long() for n in PROMPT_LENGTHS])
    mask = torch.stack([(torch.arange(width) < n).long() for n in COMPLETION_LENGTHS])
    return {
        "prompt_ids": torch.randint(3, 16, (rows, prompt_width), generator=generator) * prompt_mask,
        "prompt_mask": prompt_mask,
        "completion_ids": torch.randint(1, 16, (rows, width), generator=generator) * mask,
        "completion_mask": mask,
        "advantages": torch.randn(rows, generator=generator),
        "num_items_in_batch": mask.sum(),
        "old_noise": 0.4 * torch.randn(rows, width, generator=generator),
        "ref_noise": 0.4 * torch.randn(rows, width, generator=generator),
    }


def off_policy(trainer: Any) -> dict[str, Tensor]:
    """Inputs whose old and reference log-probs lie around the present ones, so that clips and KL act."""
    inputs = make_inputs()
    with torch.no_grad():
        log_probs, _ = score_padded(trainer, inputs)
    inputs["old_per_token_logps"] = log_probs + inputs.pop("old_noise")
    inputs["ref_per_token_logps"] = log_probs + inputs.pop("ref_noise")
    return inputs


def score_padded(trainer: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """TRL's own per-token log-probs and entropies `[B, T]`."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    width = inputs["completion_ids"].shape[1]
    return trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, width, compute_entropy=True)[:2]


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


# --- our side -------------------------------------------------------------------------------------------------------


def pack(inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """`owner [A]` and `lengths [B]` of the unpadded completions."""
    lengths = inputs["completion_mask"].sum(1)
    return torch.repeat_interleave(torch.arange(len(lengths)), lengths), lengths


def score_packed(model: LlamaForCausalLM, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Our log-probs and entropies `[A]`: the hidden state before each completion token, through the head in chunks."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    taken = inputs["completion_mask"].bool()
    before = hidden[:, inputs["prompt_ids"].shape[1] - 1 : -1]
    log_probs, entropies = hidden_log_probs(
        before[taken], model.lm_head, inputs["completion_ids"][taken],
        temperature=TEMPERATURE, with_entropy=True, budget=16 * 7,
    )  # fmt: skip
    assert entropies is not None
    return log_probs, entropies


def our_loss(
    model: LlamaForCausalLM,
    inputs: dict[str, Tensor],
    loss_type: str,
    level: ImportanceSamplingLevel,
    *,
    beta: float = 0.0,
    corrected: bool = False,
    options: dict[str, float | None] | None = None,
    entropy_bonus: float = 0.0,
    mask: Tensor | None = None,
    rollout_weights: Tensor | None = None,
    batch: dict[str, Tensor] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The micro-batch's part of the loss over `batch` (default: itself), and which actions were clipped."""
    batch = inputs if batch is None else batch
    taken, (owner, lengths) = inputs["completion_mask"].bool(), pack(inputs)
    log_probs, entropies = score_packed(model, inputs)
    old = inputs["old_per_token_logps"][taken] if "old_per_token_logps" in inputs else log_probs.detach()
    ratios = importance_ratios(log_probs, old, owner, len(lengths), level)
    actions = Actions(log_probs, old, ratios, inputs["advantages"][owner], owner, len(lengths), rollout_weights)
    loss = LOSSES.find(loss_type)
    clip = {name: value for name, value in CLIP.items() if name in loss.Settings.model_fields}
    own = loss.Settings.model_construct(**(clip if options is None else options))  # TRL has no limits
    made = loss(own, "text")
    per_action, clipped = made.per_action(actions)
    kept = torch.ones_like(per_action) if mask is None else mask.float()
    per_action = per_action * kept
    if rollout_weights is not None and not made.weighs_own_rollouts:
        per_action = per_action * rollout_weights
    if beta:
        penalty = kl(log_probs, inputs["ref_per_token_logps"][taken], "k3")
        per_action = per_action + beta * (ratios * penalty if corrected else penalty)
    num_actions = int(batch["completion_mask"].sum())
    counts = StepCounts(len(batch["completion_mask"]), num_actions, MAX_TOKENS)
    weights = loss.aggregation(owner, lengths, counts)
    return (weights * per_action).sum() - entropy_bonus * (entropies * kept).sum() / (
        num_actions if mask is None else kept.sum()
    ), clipped


def assert_same(model: nn.Module, ours: Tensor, theirs: Tensor) -> None:
    """Loss value, and gradient of every parameter; the gradient must not be trivially zero."""
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    mine, reference = gradients(model, ours), gradients(model, theirs)
    assert sum(float(g.abs().sum()) for g in reference.values()) > 0.1
    for name, gradient in reference.items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_trl_defaults() -> None:
    """Defaults of TRL for keys that a recipe does not set; AlgorithmConfig documents where motet differs."""
    defaults = GRPOConfig(output_dir="unused", use_cpu=True, bf16=False, report_to="none")
    expected: dict[str, Any] = {
        "loss_type": "dapo", "importance_sampling_level": "token", "num_generations": 8, "num_iterations": 1,
        "scale_rewards": "group", "multi_objective_aggregation": "sum_then_normalize", "reward_weights": None,
        "epsilon": 0.2, "epsilon_high": None, "delta": None, "beta": 0.0, "use_bias_correction_kl": True,
        "entropy_coef": 0.0, "max_completion_length": 512, "mask_truncated_completions": False,
        "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": None, "top_entropy_quantile": 1.0,
        "sync_ref_model": False, "ref_model_mixup_alpha": 0.6, "ref_model_sync_steps": 512,
    }  # fmt: skip
    assert {name: getattr(defaults, name) for name in expected} == expected
    assert STD_EPSILON == 1e-4
    names = ("epsilon", "epsilon_high", "delta", "top_entropy_quantile", "mask_truncated_completions")
    grpo = LOSSES.find("grpo").Settings()
    assert [getattr(grpo, name) for name in names] == [getattr(defaults, name) for name in names]
    for loss in ("sapo", "vespo"):
        for name, value in LOSSES.find(loss).Settings().model_dump().items():
            assert value == getattr(defaults, f"{loss}_{name}", value), name


def test_log_probs_and_entropies(trainer: Any) -> None:
    inputs = make_inputs()
    taken = inputs["completion_mask"].bool()
    theirs = score_padded(trainer, inputs)
    ours = score_packed(trainer.model, inputs)
    for our_values, their_values in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our_values, their_values[taken], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("corrected", [False, True], ids=["plain_kl", "corrected_kl"])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_loss_and_gradient(
    trainer: Any, monkeypatch: pytest.MonkeyPatch, loss_type: str, level: ImportanceSamplingLevel, corrected: bool
) -> None:
    """Off-policy, clipped on both sides, with a KL. TRL's KL is plain k3 without `use_bias_correction_kl`."""
    monkeypatch.setattr(trainer, "loss_type", loss_type)
    monkeypatch.setattr(trainer, "importance_sampling_level", level)
    monkeypatch.setattr(trainer, "beta", 0.3)
    monkeypatch.setattr(trainer.args, "use_bias_correction_kl", corrected)
    inputs = off_policy(trainer)
    theirs = trainer._compute_loss(trainer.model, inputs)
    ours, clipped = our_loss(trainer.model, inputs, loss_type, level, beta=0.3, corrected=corrected)
    assert_same(trainer.model, ours, theirs)
    if level == "token":
        low, high = (trainer._metrics["train"][f"clip_ratio/{side}_mean"][-1] for side in ("low", "high"))
        assert min(low, high) > 0.05
        assert clipped is not None
        assert clipped.float().mean().item() == pytest.approx(low + high)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_on_policy_loss_and_gradient(trainer: Any, monkeypatch: pytest.MonkeyPatch, loss_type: str) -> None:
    """TRL without old log-probs: the ratio is 1 and only its gradient matters."""
    monkeypatch.setattr(trainer, "loss_type", loss_type)
    inputs = make_inputs()
    ours, clipped = our_loss(trainer.model, inputs, loss_type, "token")
    assert clipped is not None and not bool(clipped.any())
    assert_same(trainer.model, ours, trainer._compute_loss(trainer.model, inputs))


def test_no_epsilon_is_trls_loss_with_a_clip_range_without_end(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("epsilon_low", "epsilon_high"):
        monkeypatch.setattr(trainer, name, 1e9)
    monkeypatch.setattr(trainer, "loss_type", "grpo")
    inputs = off_policy(trainer)
    ours, _ = our_loss(trainer.model, inputs, "grpo", "token", options={"epsilon": None})
    assert_same(trainer.model, ours, trainer._compute_loss(trainer.model, inputs))


@pytest.mark.parametrize(
    ("loss_type", "level"), [("grpo", "token"), ("grpo", "sequence"), ("dapo", "token"), ("cispo", "token"),
                             ("sapo", "token"), ("vespo", "token")],
)  # fmt: skip
def test_rollout_importance_sampling(
    trainer: Any, monkeypatch: pytest.MonkeyPatch, loss_type: str, level: ImportanceSamplingLevel
) -> None:
    """TRL's `token_truncate` and `sequence_truncate` beside a KL, which they do not weigh; 1.1 truncates some."""
    monkeypatch.setattr(trainer, "loss_type", loss_type)
    monkeypatch.setattr(trainer, "use_vllm", True)
    monkeypatch.setattr(trainer, "vllm_importance_sampling_correction", True)
    monkeypatch.setattr(trainer, "beta", 0.3)
    inputs, (owner, lengths) = off_policy(trainer), pack(make_inputs())
    taken, old = inputs["completion_mask"].bool(), inputs["old_per_token_logps"]
    sampled = old + 0.6 * torch.randn(old.shape, generator=torch.Generator().manual_seed(3))
    difference = (old - sampled) * inputs["completion_mask"]
    if level == "sequence":
        difference = difference.sum(dim=-1, keepdim=True)
    inputs["importance_sampling_ratio"] = torch.clamp(torch.exp(difference), max=1.1)
    weights = rollout_is_weights(old[taken], sampled[taken], owner, len(lengths), level)
    assert 0 < float((weights > 1.1).float().mean()) < 0.95
    options = {"epsilon_high": EPSILON_HIGH + 1} if loss_type == "cispo" else CLIP if loss_type in LOSS_TYPES else {}
    monkeypatch.setattr(trainer, "epsilon_high", options.get("epsilon_high", EPSILON_HIGH))
    theirs = trainer._compute_loss(trainer.model, inputs)
    ours, _ = our_loss(
        trainer.model, inputs, loss_type, "token", beta=0.3, options=dict(options),
        rollout_weights=weights.clamp(max=1.1),
    )  # fmt: skip
    assert_same(trainer.model, ours, theirs)
    without, _ = our_loss(trainer.model, inputs, loss_type, "token", beta=0.3, options=dict(options))
    assert abs(float(without - ours)) > 1e-3


OURS = {
    "sapo_temperature_pos": "temperature_pos", "sapo_temperature_neg": "temperature_neg", "vespo_k_pos": "k_pos",
    "vespo_lambda_pos": "lambda_pos", "vespo_k_neg": "k_neg", "vespo_lambda_neg": "lambda_neg",
}  # fmt: skip
"""TRL's name of an option -> that of the loss."""
OTHER_LOSSES: list[tuple[str, dict[str, float]]] = [
    ("cispo", {"epsilon_high": 1.1}),
    ("sapo", {}),
    ("sapo", {"sapo_temperature_pos": 2.5, "sapo_temperature_neg": 0.7}),
    ("vespo", {}),
    ("vespo", {"vespo_k_pos": 0.5, "vespo_lambda_pos": 1.5, "vespo_k_neg": 1.2, "vespo_lambda_neg": 0.4}),
    ("grpo", {"delta": 1.3}),
    ("dapo", {"delta": 1.5}),
]


@pytest.mark.parametrize("on_policy", [False, True])
@pytest.mark.parametrize(("loss_type", "options"), OTHER_LOSSES)
def test_other_losses(
    trainer: Any, monkeypatch: pytest.MonkeyPatch, loss_type: str, options: dict[str, float], on_policy: bool
) -> None:
    """CISPO, SAPO, VESPO and two-sided clipping, with TRL's defaults."""
    monkeypatch.setattr(trainer, "loss_type", loss_type)
    for name, value in options.items():
        monkeypatch.setattr(trainer if name == "epsilon_high" else trainer.args, name, value)
    inputs = make_inputs() if on_policy else off_policy(trainer)
    if "delta" in options and not on_policy:
        inputs["old_per_token_logps"] -= 0.4  # high ratios, of negative advantages too
    theirs = trainer._compute_loss(trainer.model, inputs)
    own = {**CLIP, **options} if "delta" in options else {OURS.get(name, name): v for name, v in options.items()}
    ours, clipped = our_loss(trainer.model, inputs, loss_type, "token", options=own)
    assert_same(trainer.model, ours, theirs)
    if loss_type == "cispo" and not on_policy:
        capped = trainer._metrics["train"]["cispo_clip_ratio"][-1]  # of actions with a positive advantage
        assert clipped is not None
        assert (clipped & (inputs["advantages"][pack(inputs)[0]] > 0)).float().mean().item() == pytest.approx(capped)
        assert capped > 0.05
    if "delta" in options and not on_policy:  # or the comparison would not see it
        without, _ = our_loss(trainer.model, inputs, loss_type, "token")
        assert abs(float(without - ours)) > 1e-3


@pytest.mark.parametrize("loss_type", [*LOSS_TYPES, "sapo"])
def test_the_entropy_bonus_is_a_mean_over_tokens(trainer: Any, monkeypatch: pytest.MonkeyPatch, loss_type: str) -> None:
    """Whatever the weights of the loss type."""
    monkeypatch.setattr(trainer, "loss_type", loss_type)
    monkeypatch.setattr(trainer, "entropy_coef", 0.5)
    monkeypatch.setattr(trainer, "_entropy_bonus_enabled", True)
    inputs = off_policy(trainer)
    theirs = trainer._compute_loss(trainer.model, inputs)
    assert_same(trainer.model, our_loss(trainer.model, inputs, loss_type, "token", entropy_bonus=0.5)[0], theirs)


@pytest.mark.parametrize("share", [0.0, 0.4])
@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "cispo"])
def test_top_entropy_quantile(trainer: Any, monkeypatch: pytest.MonkeyPatch, loss_type: str, share: float) -> None:
    """The policy loss and the entropy bonus of the tokens of the highest entropy, the KL of all."""
    settings = {"loss_type": loss_type, "top_entropy_quantile": share, "beta": 0.3, "entropy_coef": 0.5}
    for name, value in {**settings, "_entropy_bonus_enabled": True}.items():
        monkeypatch.setattr(trainer, name, value)
    inputs = off_policy(trainer)
    theirs = trainer._compute_loss(trainer.model, inputs)
    mask = highest_entropies(score_packed(trainer.model, inputs)[1].detach(), share)
    assert 0 < int(mask.sum()) < len(mask)
    assert_same(
        trainer.model,
        our_loss(trainer.model, inputs, loss_type, "token", mask=mask, beta=0.3, entropy_bonus=0.5)[0],
        theirs,
    )


@pytest.mark.parametrize("loss_type", [*LOSS_TYPES, "cispo", "sapo", "vespo"])
def test_mask_truncated_completions(trainer: Any, monkeypatch: pytest.MonkeyPatch, loss_type: str) -> None:
    """TRL hides the tokens of what was cut off; ours leaves the act out, and counts it as an act without actions."""
    monkeypatch.setattr(trainer, "loss_type", loss_type)
    inputs = off_policy(trainer)
    finished = torch.tensor([True, True, False, True, False, True, True, True])
    inputs["completion_mask"] = inputs["completion_mask"] * finished.unsqueeze(1)
    inputs["num_items_in_batch"] = inputs["completion_mask"].sum()
    theirs = trainer._compute_loss(trainer.model, inputs)
    part = {name: value if value.dim() == 0 else value[finished] for name, value in inputs.items()}
    assert_same(trainer.model, our_loss(trainer.model, part, loss_type, "token", batch=inputs)[0], theirs)


def test_sync_ref_model() -> None:
    """The mixture that TRL's callback makes of the two models' weights."""
    policy = TrainableFakePolicy()
    policy.freeze_reference()
    with torch.no_grad():
        policy.trainable()["text"].add_(torch.arange(257.0))
    theirs, present = nn.Linear(1, 257, bias=False), nn.Linear(1, 257, bias=False)
    assert policy.start is not None
    theirs.weight.data, present.weight.data = (
        policy.start["text"][:, None].clone(),
        policy.trainable()["text"].data[:, None],
    )
    SyncRefModelCallback._sync_target_model(present, theirs, 0.6)
    mix_into_reference(policy, 0.6)
    assert torch.equal(policy.start["text"], theirs.weight.data[:, 0])


def accumulate(trainer: Any, monkeypatch: pytest.MonkeyPatch, loss_type: str) -> tuple[Any, Any, Tensor]:
    """A batch of eight, its two micro-batches, and the loss that TRL accumulates over them."""
    monkeypatch.setattr(trainer, "loss_type", loss_type)
    monkeypatch.setattr(trainer, "current_gradient_accumulation_steps", 2)
    monkeypatch.setattr(trainer.args, "steps_per_generation", 2)
    batch = off_policy(trainer)
    parts = [
        {name: value if value.dim() == 0 else value[rows] for name, value in batch.items()}
        for rows in (slice(0, 4), slice(4, 8))
    ]
    return batch, parts, torch.stack([trainer._compute_loss(trainer.model, part) for part in parts]).sum()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_accumulated_over_two_microbatches(
    trainer: Any, monkeypatch: pytest.MonkeyPatch, loss_type: str, level: ImportanceSamplingLevel
) -> None:
    monkeypatch.setattr(trainer, "importance_sampling_level", level)
    batch, parts, theirs = accumulate(trainer, monkeypatch, loss_type)
    ours = torch.stack([our_loss(trainer.model, part, loss_type, level, batch=batch)[0] for part in parts]).sum()
    assert_same(trainer.model, ours, theirs)


def test_trl_takes_the_denominator_of_bnpo_per_microbatch(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one deliberate difference: ours is global, so that the split does not matter (invariant 4)."""
    batch, parts, theirs = accumulate(trainer, monkeypatch, "bnpo")
    local = torch.stack([our_loss(trainer.model, part, "bnpo", "token")[0] / 2 for part in parts]).sum()
    assert_same(trainer.model, local, theirs)
    ours = torch.stack([our_loss(trainer.model, part, "bnpo", "token", batch=batch)[0] for part in parts]).sum()
    assert abs(ours.item() - theirs.item()) > 1e-3


Groups = list[list[float | None]]
LIVELY: Groups = [[0.0, 1.0, 1.0, 4.0], [2.0, None, 2.5, -1.0]]
DULL: Groups = [[0.5, 0.5, 0.5, 0.5], [None, 3.0, None, None]]
BATCHES: list[Groups] = [LIVELY, [LIVELY[0], DULL[0]], [DULL[1], LIVELY[1]], DULL]


def as_rewards(groups: Groups) -> Tensor:
    return torch.tensor([[torch.nan if r is None else r for r in group] for group in groups])


def trl_advantages(trainer: Any) -> Tensor:
    return trainer._generate_and_score_completions([{"prompt": "a b"}] * 8)["advantages"].view(2, G)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("groups", BATCHES, ids=["lively", "one_equal", "one_survivor", "dull"])
def test_advantages(tmp_path: Path, scale: Scale, groups: Groups) -> None:
    """Group mean, unbiased deviation + 1e-4; a completion without reward is left out of both and gets 0."""
    trainer = build(GRPOTrainer, GRPOConfig, tmp_path, [[*groups[0], *groups[1]]], scale_rewards=scale)
    theirs = trl_advantages(trainer)
    torch.testing.assert_close(batch_advantages(as_rewards(groups), scale=scale), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", BATCHES, ids=["lively", "one_equal", "one_survivor", "dull"])
def test_rloo_advantages(tmp_path: Path, groups: Groups) -> None:
    trainer = build(RLOOTrainer, RLOOConfig, tmp_path, [[*groups[0], *groups[1]]])
    ours = batch_advantages(as_rewards(groups), baseline="rloo", scale="none")
    torch.testing.assert_close(ours, trl_advantages(trainer), rtol=1e-5, atol=1e-5)


def test_gdpo_advantages(tmp_path: Path) -> None:
    """`normalize_separately`, then scale "batch": TRL's `normalize_then_sum`, which whitens the sum over the batch."""
    first, second = [[0.0, 1.0, 1.0, 4.0], [2.0, 0.0, 2.5, -1.0]], [[0.0, 50.0, 0.0, 9.0], [1.0, 1.0, 1.0, 0.0]]
    trainer = build(
        GRPOTrainer, GRPOConfig, tmp_path, [[*first[0], *first[1]], [*second[0], *second[1]]],
        multi_objective_aggregation="normalize_then_sum", reward_weights=[1.0, 0.8],
    )  # fmt: skip
    sums = [
        normalize_separately(torch.tensor(rewards), torch.tensor([1.0, 0.8]))
        for rewards in zip(first, second, strict=True)
    ]
    ours = batch_advantages(torch.stack(sums), scale="batch")
    torch.testing.assert_close(ours, trl_advantages(trainer), rtol=1e-5, atol=1e-5)
