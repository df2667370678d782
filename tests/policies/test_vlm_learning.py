"""What trains of a vision-language policy, what its reference is, and hidden states after appended vectors."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from motet.config import LoraConfig
from motet.core.conversation import Conversation
from motet.core.errors import ConfigError
from motet.core.trajectory import Act, Encoding, Sampling
from motet.policies.qwen_vl import VlmPolicy
from motet.policies.trainable import enable_gradient_checkpointing
from tests.policies.teacher import sound_transformers
from tests.policies.vlms import conversations, open_policy, requests, shown, worst

ATOL = 1e-5
LORA = LoraConfig(rank=4, alpha=8.0)


@pytest.fixture(scope="module")
def contexts() -> list[Conversation]:
    return conversations()


@pytest.fixture
def fresh(vlm_checkpoint: Path) -> Callable[..., VlmPolicy]:
    """A policy of one's own."""
    return lambda **settings: open_policy(vlm_checkpoint, **settings)


def texts(policy: VlmPolicy, contexts: list[Conversation]) -> list[Act]:
    return policy.act(requests(*contexts), Sampling(max_tokens=6))


def words(acts: list[Act]) -> list[list[int]]:
    return [act.ids.tolist() for act in acts]  # type: ignore[attr-defined]


def disturb(policy: VlmPolicy, scale: float = 0.1) -> None:
    """A training step's worth of change, and a large one."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    policy.version += 1


def distance(policy: VlmPolicy, acts: list[Act]) -> float:
    """Between sampled and replayed log-probs."""
    return worst(policy.log_probs(acts), [act.log_probs for act in acts])


# ---- what trains --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", [["lm_head"], ["visual"], ["language_model"], ["visual", "lm_head"]])
def test_the_gradient_reaches_the_chosen_parts_alone(
    fresh: Callable[..., VlmPolicy], contexts: list[Conversation], chosen: list[str]
) -> None:
    policy = fresh()
    assert list(policy.parts) == ["visual", "language_model", "lm_head"]
    policy.train_parts(chosen)
    prefixes = tuple("lm_head." if part == "lm_head" else f"model.{part}." for part in chosen)
    assert policy.trainable() and all(name.startswith(prefixes) for name in policy.trainable())
    sum(r.log_probs.sum() for r in policy.replay(texts(policy, contexts))).backward()
    reached = {n for n, p in policy.model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    # A bias of keys shifts all scores of a query alike, so softmax takes its gradient away, up to rounding.
    assert {n for n in set(policy.trainable()) ^ reached if "k_proj.bias" not in n} == set()


def test_an_unknown_part_is_refused(fresh: Callable[..., VlmPolicy]) -> None:
    with pytest.raises(ConfigError, match=r"'languge_model'.*Did you mean 'language_model'\?"):
        fresh().train_parts(["languge_model"])


def test_adapters_alone_train_and_their_reference_is_the_model_without(
    fresh: Callable[..., VlmPolicy], vlm: VlmPolicy, contexts: list[Conversation]
) -> None:
    pytest.importorskip("peft")
    policy = fresh()
    policy.add_lora(LORA)
    policy.freeze_reference()
    acts = texts(vlm, contexts)
    assert len(policy.trainable()) == 2 * 7 * 3  # A and B, seven layers, three blocks
    assert all(".lora_" in name and "language_model" in name for name in policy.trainable())
    assert distance(policy, acts) < ATOL
    sum(r.log_probs.sum() for r in policy.replay(acts)).backward()
    assert {n for n, p in policy.model.named_parameters() if p.grad is not None} == set(policy.trainable())
    disturb(policy)
    assert distance(policy, acts) > 0.1
    assert distance(policy, texts(policy, contexts)) < ATOL
    with policy.reference():
        assert distance(policy, acts) < ATOL
        assert words(texts(policy, contexts)) == words(acts)
    assert distance(policy, acts) > 0.1
    with pytest.raises(ConfigError, match=r"cannot train beside the adapters of policy\.lora"):
        policy.train_parts(["lm_head"])


# ---- hidden states after appended vectors -------------------------------------------------------------------------


def one_by_one(policy: VlmPolicy, encoding: Encoding, appended: Tensor) -> Tensor:
    """`[Q, D]`: transformers' own forward over ids, in which the appended places hold words of these vectors."""
    count, embed = len(appended), policy.model.model.language_model.embed_tokens
    ids = torch.cat([encoding.ids, torch.zeros(count, dtype=torch.long)])

    def put_in(_: object, __: object, found: Tensor) -> Tensor:
        return torch.cat([found[:, :-count], appended[None]], dim=1)

    hook = embed.register_forward_hook(put_in)
    try:
        return policy.model.model(input_ids=ids[None], **shown(policy, encoding, len(ids))).last_hidden_state[
            0, -count:
        ]
    finally:
        hook.remove()


@sound_transformers
@pytest.mark.parametrize("recompute", [False, True])
def test_hidden_states_after_a_context_are_those_of_transformers(
    fresh: Callable[..., VlmPolicy], contexts: list[Conversation], recompute: bool
) -> None:
    policy = fresh()
    if recompute:
        enable_gradient_checkpointing(policy.model.model.language_model)
    encodings = policy.encoder.encode_all([contexts[k] for k in (0, 1, 2, 1)], max_new_tokens=5)
    appended = torch.randn(5, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = policy.hidden_after(encodings, appended)
    expected = torch.stack([one_by_one(policy, encoding, appended) for encoding in encodings])
    assert found.shape == (4, 5, 32) and worst([found], [expected]) < ATOL
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    wanted = [appended, *policy.model.model.language_model.parameters()]
    ours, theirs = (torch.autograd.grad((hidden * weights).sum(), wanted) for hidden in (found, expected))
    assert worst(ours, theirs) < 20 * ATOL and float(ours[0].abs().max()) > 0.1


def test_appended_vectors_look_back_and_not_ahead(vlm: VlmPolicy, contexts: list[Conversation]) -> None:
    encodings = vlm.encoder.encode_all(contexts, max_new_tokens=3)
    appended = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, first = vlm.hidden_after(encodings, appended), vlm.hidden_after(encodings, appended[:2])
        assert worst([whole[:, :2]], [first]) < ATOL
        changed = vlm.hidden_after(encodings, torch.cat([appended[:1] + 1, appended[1:]]))
    assert float((changed[:, 1:] - whole[:, 1:]).abs().amax(dim=(1, 2)).min()) > 1e-3


def test_a_frozen_model_still_passes_the_gradient_on(
    fresh: Callable[..., VlmPolicy], contexts: list[Conversation]
) -> None:
    policy = fresh()
    policy.model.requires_grad_(False)
    encodings = policy.encoder.encode_all(contexts, max_new_tokens=3)
    appended = torch.randn(3, 32, requires_grad=True)
    policy.hidden_after(encodings, appended).pow(2).sum().backward()
    assert float(appended.grad.abs().amax(dim=1).min()) > 1e-3
    assert all(p.grad is None for p in policy.model.parameters())


def test_each_context_is_read_once_for_its_queries(vlm: VlmPolicy, contexts: list[Conversation]) -> None:
    one, other = vlm.encoder.encode_all(contexts[1:], max_new_tokens=2)
    patches: list[int] = []
    hook = vlm.model.model.visual.register_forward_pre_hook(lambda _, inputs: patches.append(len(inputs[0])))
    with torch.no_grad():
        found = vlm.hidden_after([one, other, one, one], torch.ones(2, 32))
    hook.remove()
    assert patches == [len(one.pixels) + len(other.pixels)]
    assert torch.equal(found[0], found[2]) and not torch.allclose(found[0], found[1])
    assert vlm.hidden_after([], torch.ones(2, 32)).shape == (0, 2, 32)
