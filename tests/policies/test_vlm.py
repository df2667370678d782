"""A vision-language policy: what it samples, it replays; what it replays is what transformers computes.

Bounds: float32 sampling and replay agree within 1e-5 in log-probability; under bfloat16 autocast within 0.1.
"""

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image

from motet.core.conversation import Conversation, user
from motet.core.protocols import Request
from motet.core.trajectory import Act, Sampling, TextTokens
from motet.policies.generation import replay as replay_module
from motet.policies.generation import sampling as sampling_module
from motet.policies.generation.forward import KVCacheContinuation
from motet.policies.qwen_vl import VlmPolicy
from motet.policies.trainable import enable_gradient_checkpointing
from tests.policies.teacher import sound_transformers
from tests.policies.vlms import conversations, generated, open_policy, requests, save_tiny, teacher_forced, worst

ATOL = 1e-5
BFLOAT16_ATOL = 0.1

SAMPLINGS = {
    "plain": Sampling(max_tokens=12),
    "temperature": Sampling(max_tokens=12, temperature=0.7),
    "top_k": Sampling(max_tokens=12, top_k=5),
    "top_p": Sampling(max_tokens=12, top_p=0.8),
    "min_p": Sampling(max_tokens=12, min_p=0.3),
    "all": Sampling(max_tokens=12, temperature=0.7, top_k=20, top_p=0.8),
}


@pytest.fixture(scope="module")
def contexts() -> list[Conversation]:
    return conversations()


def texts(policy: VlmPolicy, contexts: list[Conversation], n: int = 2, **sampling: object) -> list[TextTokens]:
    return policy.act(requests(*contexts, n=n), Sampling(**{"max_tokens": 12, **sampling}))  # type: ignore


# ---- sampled == replayed == teacher-forced ------------------------------------------------------------------------


@sound_transformers
def test_greedy_text_is_that_of_transformers_generate(vlm: VlmPolicy, contexts: list[Conversation]) -> None:
    """All prompts in one batch here, one by one there."""
    acts = texts(vlm, contexts, temperature=0.0)
    assert len({len(act.encoding.ids) for act in acts}) == 3
    assert len({act.text for act in acts}) == 3
    for act in acts:
        assert act.ids.tolist() == generated(vlm, act.encoding, 12)


@sound_transformers
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_unmerged_patches_and_tied_heads_too(family: str, tmp_path: Path, contexts: list[Conversation]) -> None:
    policy = open_policy(save_tiny(tmp_path, family, merge=1, window=8, image=16, tied=True))
    acts = texts(policy, contexts, temperature=0.0, n=1)
    assert [int((act.encoding.ids == policy.encoder.image_id).sum()) for act in acts] == [0, 16, 2 * 8 + 6 * 4]
    for act in acts:
        assert act.ids.tolist() == generated(policy, act.encoding, 12)
    assert worst(policy.log_probs(acts), [teacher_forced(policy, act) for act in acts]) < ATOL


@sound_transformers
@pytest.mark.parametrize("name", SAMPLINGS)
def test_texts_replay_as_sampled_and_as_transformers_scores_them(
    vlm: VlmPolicy, contexts: list[Conversation], name: str
) -> None:
    acts = vlm.act(requests(*contexts), SAMPLINGS[name])
    assert worst(vlm.log_probs(acts), [act.log_probs for act in acts]) < ATOL
    words = [act for act in acts if vlm.encoder.image_id not in act.ids]  # transformers would look for a picture there
    assert len(words) >= len(acts) - 1
    assert worst([act.log_probs for act in words], [teacher_forced(vlm, act) for act in words]) < ATOL


def test_image_changes_logits(vlm: VlmPolicy, contexts: list[Conversation]) -> None:
    act = texts(vlm, contexts[1:2], n=1)[0]
    blind = dataclasses.replace(act, encoding=dataclasses.replace(act.encoding, pixels=act.encoding.pixels.flip(0)))
    assert worst(vlm.log_probs([act]), vlm.log_probs([blind])) > 0.05


def test_texts_end_with_what_ends_them_in_transformers(vlm: VlmPolicy) -> None:
    acts = vlm.generate_text("what?", n=160, max_tokens=12, temperature=4.0)
    end_of_turn, end_of_text = vlm.encoder.eos_id, vlm.encoder.tokenizer.pad_token_id
    assert set(vlm.adapter.stop_ids) == set(vlm.model.generation_config.eos_token_id) == {end_of_turn, end_of_text}
    assert {int(act.ids[-1]) for act in acts if act.finished} == {end_of_turn, end_of_text}
    assert not all(act.finished for act in acts)
    for act in acts:
        ends = torch.isin(act.ids, torch.tensor(vlm.adapter.stop_ids)).nonzero().flatten().tolist()
        assert ends == ([act.num_actions - 1] if act.finished else [])
        assert act.finished or act.num_actions == 12
        assert act.text == vlm.encoder.tokenizer.decode(act.ids[: act.num_actions - act.finished])
    assert worst(vlm.log_probs(acts), [act.log_probs for act in acts]) < ATOL


def test_finished_texts_leave_the_batch(vlm: VlmPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    extend = KVCacheContinuation.extend

    def counted(self: KVCacheContinuation, vectors: torch.Tensor) -> torch.Tensor:
        rows.append(len(vectors))
        return extend(self, vectors)

    monkeypatch.setattr(KVCacheContinuation, "extend", counted)
    acts = vlm.generate_text("what?", n=96, max_tokens=48, temperature=4.0, seed=1)
    assert rows[0] == 96 and rows[-1] < 96 and rows == sorted(rows, reverse=True)
    assert worst(vlm.log_probs(acts), [act.log_probs for act in acts]) < ATOL


def test_text_is_never_guided(vlm: VlmPolicy) -> None:
    guided = vlm.generate_text("what?", max_tokens=5, guidance="guided", guidance_scale=3.0)[0]
    assert torch.equal(guided.ids, vlm.generate_text("what?", max_tokens=5)[0].ids)
    assert guided.sampling.guidance == "none"


# ---- replay in one pass -------------------------------------------------------------------------------------------


def mixed_acts(policy: VlmPolicy, contexts: list[Conversation]) -> list[Act]:
    """Of two temperatures, siblings and loners, in no order."""
    acts = policy.act(requests(*contexts, n=3), SAMPLINGS["plain"])
    acts += policy.act(requests(*contexts[:2], n=1), SAMPLINGS["temperature"])
    return [acts[k] for k in torch.randperm(len(acts), generator=torch.Generator().manual_seed(0))]


def test_any_batch_replays_alike(vlm: VlmPolicy, contexts: list[Conversation]) -> None:
    acts = mixed_acts(vlm, contexts)
    alone = [vlm.log_probs([act])[0] for act in acts]
    halves = [*vlm.log_probs(acts[::2]), *vlm.log_probs(acts[1::2])]
    assert worst(vlm.log_probs(acts), alone) < ATOL
    assert worst(halves, [act.log_probs for act in [*acts[::2], *acts[1::2]]]) < ATOL
    assert worst(vlm.log_probs(acts), [act.log_probs for act in acts]) < ATOL


def test_shared_prefixes_change_neither_log_probs_nor_gradients(
    vlm: VlmPolicy, contexts: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    acts = mixed_acts(vlm, contexts)
    passes = {"_shared_pass": replay_module._shared_pass, "_plain_pass": replay_module._plain_pass}
    results = {}
    for name, one in passes.items():
        with monkeypatch.context() as patch:
            for other in passes:
                patch.setattr(replay_module, other, one)
            replays = vlm.replay(acts, {"entropy"})
        weights = torch.linspace(-1, 1, len(acts))
        loss = sum(w * r.log_probs.mean() + r.extras["entropy"].mean() for w, r in zip(weights, replays, strict=True))
        gradients = torch.autograd.grad(loss, list(vlm.trainable().values()))
        results[name] = ([r.log_probs.detach() for r in replays], gradients)
    shared, plain = results["_shared_pass"], results["_plain_pass"]
    assert worst(shared[0], plain[0]) < ATOL
    assert worst(shared[1], plain[1]) < 10 * ATOL
    assert max(float(g.abs().max()) for g in plain[1]) > 1e-2


def test_siblings_share_their_prefix_and_their_pictures(
    vlm: VlmPolicy, contexts: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the plain pass was taken")

    patches: list[int] = []
    hook = vlm.model.model.visual.register_forward_pre_hook(lambda _, inputs: patches.append(len(inputs[0])))
    acts = texts(vlm, contexts[1:], n=4)
    monkeypatch.setattr(replay_module, "_plain_pass", refuse)
    assert len(vlm.replay(acts)) == 8
    hook.remove()
    distinct = {id(act.encoding): len(act.encoding.pixels) for act in acts}
    assert patches == [sum(distinct.values())] * 2  # once to sample, once to replay


def test_entropy_is_that_of_the_scoring_distribution(vlm: VlmPolicy) -> None:
    act = vlm.generate_text("what?", max_tokens=6, temperature=0.7)[0]
    entropy = vlm.replay([act], {"entropy"})[0].extras["entropy"]
    ids = torch.cat([act.encoding.ids, act.ids])
    logits = vlm.model(input_ids=ids[None]).logits[0, len(act.encoding.ids) - 1 : -1]
    assert worst([entropy], [torch.distributions.Categorical(logits=logits / 0.7).entropy()]) < ATOL
    assert vlm.replay([act])[0].extras == {}


def test_recomputed_activations_give_the_same_samples_log_probs_and_gradients(
    vlm_checkpoint: Path, contexts: list[Conversation]
) -> None:
    results = {}
    for recompute in (False, True):
        policy = open_policy(vlm_checkpoint)
        if recompute:
            enable_gradient_checkpointing(policy.model.model.language_model)
        acts = texts(policy, contexts, n=3)
        calls: list[int] = []
        policy.model.model.language_model.layers[0].self_attn.register_forward_hook(lambda *_, c=calls: c.append(1))
        replays = policy.replay(acts)
        forwards = len(calls)
        gradients = torch.autograd.grad(sum(r.log_probs.sum() for r in replays), list(policy.trainable().values()))
        assert len(calls) == (2 * forwards if recompute else forwards)  # the backward pass computes the layer again
        results[recompute] = ([a.ids for a in acts], [r.log_probs.detach() for r in replays], gradients)
    assert worst(results[True][0], results[False][0]) == 0
    assert worst(results[True][1], results[False][1]) < ATOL
    assert worst(results[True][2], results[False][2]) < 10 * ATOL


@sound_transformers
def test_an_image_pad_that_the_model_wrote_is_a_word(vlm: VlmPolicy, contexts: list[Conversation]) -> None:
    act = texts(vlm, contexts[1:2], n=1)[0]
    ids = act.ids.clone()
    assert ids[0] != vlm.encoder.image_id
    ids[0] = vlm.encoder.image_id
    forced = dataclasses.replace(act, ids=ids)
    replayed = vlm.replay([forced])[0].log_probs.detach()
    # transformers' model would look for a picture, so the word wears an unused id with the same vector.
    used = torch.cat([act.encoding.ids, act.ids]).tolist()
    table = vlm.model.model.language_model.embed_tokens.weight.data
    unused = next(token for token in range(len(table)) if token not in used)
    kept = table[unused].clone()
    table[unused] = table[vlm.encoder.image_id]
    expected = teacher_forced(vlm, dataclasses.replace(act, ids=ids.where(ids != vlm.encoder.image_id, unused)))
    table[unused] = kept
    assert worst([replayed[1:]], [expected[1:]]) < ATOL
    assert worst([replayed[1:]], [act.log_probs[1:]]) > 100 * ATOL


def test_autocast_stays_near(vlm: VlmPolicy, vlm_checkpoint: Path, contexts: list[Conversation]) -> None:
    exact, policy = vlm, open_policy(vlm_checkpoint, autocast=torch.bfloat16)
    acts = texts(policy, contexts)
    replayed = policy.log_probs(acts)
    assert all(r.dtype == torch.float32 for r in [*replayed, *(act.log_probs for act in acts)])
    assert worst(replayed, [act.log_probs for act in acts]) < BFLOAT16_ATOL
    assert 1e-4 < worst(replayed, exact.log_probs(acts)) < BFLOAT16_ATOL


# ---- randomness ---------------------------------------------------------------------------------------------------


def test_sampling_in_parts_changes_no_sample(
    vlm: VlmPolicy, vlm_checkpoint: Path, contexts: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, sizes = open_policy(vlm_checkpoint, rollout_batch=3), []
    decode = sampling_module.generate_from_state

    def counted(hidden: torch.Tensor, *rest: object, **settings: object) -> object:
        sizes.append(len(hidden))
        return decode(hidden, *rest, **settings)

    monkeypatch.setattr(sampling_module, "generate_from_state", counted)
    parts = policy.act(requests(*contexts[:2], n=4), SAMPLINGS["plain"])
    assert sizes == [3, 3, 2]
    assert len({id(act.encoding) for act in parts}) == 2  # siblings still share their prefix in replay
    monkeypatch.undo()
    whole = vlm.act(requests(*contexts[:2], n=4), SAMPLINGS["plain"])
    assert [act.ids.tolist() for act in parts] == [act.ids.tolist() for act in whole]


# ---- supervision and the contract ---------------------------------------------------------------------------------


@sound_transformers
def test_demonstrated_text_costs_what_transformers_says(vlm: VlmPolicy, contexts: list[Conversation]) -> None:
    asked = Request("text", "answer", contexts[1], (0,), trained=False)
    act = vlm.encode_targets([asked], ["<think>three</think> red <|im_end|>"])[0]
    assert isinstance(act, TextTokens)
    assert (act.text, act.finished) == ("<think>three</think> red <|im_end|>", True)
    assert (act.name, act.trained, act.log_probs) == ("answer", False, None)
    assert act.ids.tolist().count(vlm.encoder.eos_id) == 1 and act.ids[-1] == vlm.encoder.eos_id
    ids = torch.cat([act.encoding.ids, act.ids])
    theirs = vlm.model(
        input_ids=ids[None],
        pixel_values=act.encoding.pixels,
        image_grid_thw=act.encoding.image_sizes,
        mm_token_type_ids=(ids[None] == vlm.encoder.image_id).int(),
        labels=torch.cat([torch.full_like(act.encoding.ids, -100), act.ids])[None],
    ).loss
    assert worst([-vlm.replay([act])[0].log_probs.mean()], [theirs]) < ATOL
    assert theirs.item() > 1.0


def test_the_notebook_door(vlm: VlmPolicy, image: Image.Image) -> None:
    about = vlm.generate_text(["what?", user("and now?")], [image, image], n=2, max_tokens=3)
    assert len(about) == 4 and all(act.encoding.pixels is not None for act in about)
    assert vlm.generate_text("what?", image, max_tokens=3)[0].text == about[0].text
    assert about[2].context.to_chat()[0]["content"][0]["type"] == "image"
