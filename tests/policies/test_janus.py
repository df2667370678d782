"""A Janus policy: what it samples, it replays; what it replays is what transformers computes.

Bounds: float32 sampling and replay agree within 1e-4 in log-probability; under bfloat16 autocast within 0.1.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from motet.config import PolicyConfig
from motet.core.conversation import Conversation, Message, Text, assistant, user
from motet.core.errors import CheckpointError, ConfigError, ContextError, DataError
from motet.core.protocols import Request
from motet.core.trajectory import Act, Sampling
from motet.policies import load_policy
from motet.policies.generation import replay as replay_module
from motet.policies.generation import sampling as sampling_module
from motet.policies.generation.decode_loop import decode
from motet.policies.janus import JanusPolicy
from motet.policies.janus.prompt_encoding import ContextEncoder
from tests.policies.teacher import sound_transformers, teacher_forced, unconditional_ids

ATOL = 1e-4
BFLOAT16_ATOL = 0.1

SAMPLINGS = {
    "plain": Sampling(max_tokens=12),
    "temperature": Sampling(max_tokens=12, temperature=0.7),
    "top_k": Sampling(max_tokens=12, top_k=5),
    "top_p": Sampling(max_tokens=12, top_p=0.8),
    "min_p": Sampling(max_tokens=12, min_p=0.3),
    "guided_min_p": Sampling(guidance="guided", guidance_scale=3.0, min_p=0.3),
    "all": Sampling(max_tokens=12, temperature=0.7, top_k=20, top_p=0.8),
    "guided": Sampling(guidance="guided", guidance_scale=3.0),
    "guided_all": Sampling(guidance="guided", guidance_scale=3.0, temperature=0.7, top_k=20, top_p=0.8),
    "conditional": Sampling(guidance="conditional", guidance_scale=3.0),
    "conditional_all": Sampling(guidance="conditional", guidance_scale=3.0, temperature=0.7, top_k=20, top_p=0.8),
}
TEXT = ["plain", "temperature", "top_k", "top_p", "min_p", "all"]


def requests(kind: str, *contexts: Conversation, n: int = 2) -> list[Request]:
    return [Request(kind, kind, context, (7, k, g)) for k, context in enumerate(contexts) for g in range(n)]


def worst(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    """Largest absolute difference, of tensors that must agree in shape."""
    assert [a.shape for a in ours] == [b.shape for b in theirs]
    return max(float((a - b).detach().abs().max()) for a, b in zip(ours, theirs, strict=True))


@pytest.fixture(scope="module")
def contexts(image: Image.Image) -> list[Conversation]:
    """Of different lengths; one with a picture, one with an earlier answer."""
    asked = user(image, "what colour is it?")
    return [user("draw two red circles"), asked, asked + assistant("red") + user("a blue star left of a green square")]


# ---- sampled == replayed == teacher-forced ------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLINGS)
def test_images_replay_as_sampled_and_as_transformers_scores_them(
    policy: JanusPolicy, contexts: list[Conversation], name: str
) -> None:
    acts = policy.act(requests("image", contexts[0], user("a star")), SAMPLINGS[name])
    assert all(len(act.ids) == policy.num_image_tokens == 16 for act in acts)
    assert worst(policy.log_probs(acts), [act.log_probs for act in acts]) < ATOL
    expected = [teacher_forced(policy, act) for act in acts]
    if name == "conditional_all":  # the mixture may draw what the conditional branch excludes: -inf there
        expected = [torch.where(e == -torch.inf, act.log_probs, e) for e, act in zip(expected, acts, strict=True)]
    assert worst([act.log_probs for act in acts], expected) < ATOL


@pytest.mark.parametrize("name", TEXT)
def test_texts_replay_as_sampled_and_as_transformers_scores_them(
    policy: JanusPolicy, contexts: list[Conversation], name: str
) -> None:
    acts = policy.act(requests("text", *contexts), SAMPLINGS[name])
    assert worst(policy.log_probs(acts), [act.log_probs for act in acts]) < ATOL
    assert worst([act.log_probs for act in acts], [teacher_forced(policy, act) for act in acts]) < ATOL


def test_nothing_truncates_by_default(policy: JanusPolicy) -> None:
    """Beyond 50 tokens too: transformers' own generate leaves top_k=50 on."""
    assert (Sampling().temperature, Sampling().top_k, Sampling().top_p) == (1.0, None, None)
    acts = policy.generate_text("what?", n=64, max_tokens=4, temperature=5.0)
    ranks = []
    for act in acts:
        ids = torch.cat([act.encoding.ids, act.ids])
        with torch.no_grad():
            logits = policy.model(input_ids=ids[None]).logits[0, len(act.encoding.ids) - 1 : -1]
        ranks += [(row > row[token]).sum().item() for row, token in zip(logits, act.ids, strict=True)]
    assert max(ranks) > 60


def test_conditional_guidance_samples_the_mixture_and_scores_the_condition(policy: JanusPolicy) -> None:
    guided = policy.generate_images("a red star", n=3, guidance="guided", guidance_scale=3.0)
    biased = policy.generate_images("a red star", n=3, guidance="conditional", guidance_scale=3.0)
    for g, b in zip(guided, biased, strict=True):
        assert torch.equal(g.ids, b.ids)
        assert torch.equal(g.log_probs, b.behaviour_log_probs) and g.behaviour_log_probs is None
        plain = dataclasses.replace(b, sampling=Sampling())
        assert worst([b.log_probs], policy.log_probs([plain])) < ATOL
        assert float((b.log_probs - b.behaviour_log_probs).abs().max()) > 0.1


def test_the_unconditional_branch_is_that_of_transformers(policy: JanusPolicy, image: Image.Image) -> None:
    context = user(image, "draw it again")
    act = policy.act(requests("image", context, n=1), SAMPLINGS["guided"])[0]
    assert torch.equal(act.encoding.null_ids, unconditional_ids(policy, act.encoding.ids))
    kept = act.encoding.null_ids != policy.encoder.pad_id
    assert act.encoding.null_ids[kept].tolist() == [
        policy.encoder.bos_id,
        policy.encoder.begin_image_id,  # of the picture that is shown
        policy.encoder.begin_image_id,
    ]
    assert policy.generate_images("a star")[0].encoding.null_ids is None


@sound_transformers
def test_guided_pictures_are_those_of_transformers_generate(policy: JanusPolicy) -> None:
    act = policy.generate_images("two red circles", guidance="guided", guidance_scale=4.0, temperature=0.0)[0]
    ids = act.encoding.ids[None]
    theirs = policy.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        generation_mode="image",
        guidance_scale=4.0,
        do_sample=False,
    )
    assert act.ids.tolist() == theirs[0].tolist()


def test_greedy_text_is_that_of_transformers_generate(policy: JanusPolicy, image: Image.Image) -> None:
    for act in policy.generate_text(["what?", "what colour is it?"], [image, image], temperature=0.0, max_tokens=10):
        ids = act.encoding.ids[None]
        theirs = policy.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=act.encoding.pixels,
            max_new_tokens=10,
            do_sample=False,
        )
        assert act.ids.tolist() == theirs[0, ids.shape[1] :].tolist()


def test_a_picture_is_what_its_tokens_decode_to(policy: JanusPolicy) -> None:
    act = policy.generate_images("a star")[0]
    with torch.no_grad():
        decoded = policy.model.decode_image_tokens(act.ids[None])[0]
    levels = ((decoded + 1) * 127.5).round().clamp(0, 255)
    assert act.image.size == (16, 16)
    assert list(act.image.tobytes()) == levels.flatten().int().tolist()
    assert len(set(levels.flatten().tolist())) > 20


def test_texts_end_with_their_end_of_sequence_token(policy: JanusPolicy) -> None:
    acts = policy.generate_text("what?", n=96, max_tokens=12, temperature=4.0)
    assert {act.finished for act in acts} == {True, False}
    for act in acts:
        ends = (act.ids == policy.encoder.eos_id).nonzero().flatten().tolist()
        assert ends == ([act.num_actions - 1] if act.finished else [])
        assert act.finished or act.num_actions == 12
        assert act.text == policy.encoder.tokenizer.decode(act.ids[: act.num_actions - act.finished])
    assert worst(policy.log_probs(acts), [act.log_probs for act in acts]) < ATOL


def test_text_is_never_guided(policy: JanusPolicy) -> None:
    guided = policy.generate_text("what?", max_tokens=5, guidance="guided", guidance_scale=3.0)[0]
    assert torch.equal(guided.ids, policy.generate_text("what?", max_tokens=5)[0].ids)
    assert guided.sampling.guidance == "none" and guided.encoding.null_ids is None


# ---- replay in one pass -------------------------------------------------------------------------------------------


def mixed_acts(policy: JanusPolicy, contexts: list[Conversation]) -> list[Act]:
    """Texts and pictures, guided and not, of several temperatures, siblings and loners."""
    acts = policy.act(requests("text", *contexts, n=3), SAMPLINGS["plain"])
    acts += policy.act(requests("image", *contexts[:1], n=3), SAMPLINGS["guided"])
    acts += policy.act(requests("image", *contexts[:2], n=2), SAMPLINGS["temperature"])
    return [acts[k] for k in torch.randperm(len(acts), generator=torch.Generator().manual_seed(0))]


def test_shared_prefixes_change_neither_log_probs_nor_gradients(
    policy: JanusPolicy, contexts: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    acts = mixed_acts(policy, contexts)
    passes = {"_shared_pass": replay_module._shared_pass, "_plain_pass": replay_module._plain_pass}
    results = {}
    for name, one in passes.items():
        with monkeypatch.context() as patch:
            for other in passes:
                patch.setattr(replay_module, other, one)
            replays = policy.replay(acts, {"entropy"})
        weights = torch.linspace(-1, 1, len(acts))
        loss = sum(w * r.log_probs.mean() + r.extras["entropy"].mean() for w, r in zip(weights, replays, strict=True))
        gradients = torch.autograd.grad(loss, list(policy.trainable().values()))
        results[name] = ([r.log_probs.detach() for r in replays], gradients)
    shared, plain = results["_shared_pass"], results["_plain_pass"]
    assert worst(shared[0], plain[0]) < ATOL
    assert worst(shared[1], plain[1]) < ATOL
    assert max(float(g.abs().max()) for g in plain[1]) > 1e-2


def test_siblings_share_their_prefix(
    policy: JanusPolicy, contexts: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the plain pass was taken")

    acts = policy.act(requests("text", contexts[0], n=4), SAMPLINGS["plain"])
    monkeypatch.setattr(replay_module, "_plain_pass", refuse)
    assert len(policy.replay(acts)) == 4


def test_entropy_is_that_of_the_scoring_distribution(policy: JanusPolicy) -> None:
    act = policy.generate_text("what?", max_tokens=6, temperature=0.7)[0]
    entropy = policy.replay([act], {"entropy"})[0].extras["entropy"]
    ids = torch.cat([act.encoding.ids, act.ids])
    logits = policy.model(input_ids=ids[None]).logits[0, len(act.encoding.ids) - 1 : -1]
    expected = torch.distributions.Categorical(logits=logits / 0.7).entropy()
    assert worst([entropy], [expected]) < ATOL
    assert policy.replay([act])[0].extras == {}


def test_recomputed_activations_give_the_same_log_probs_and_gradients(
    fresh: Callable[..., JanusPolicy], contexts: list[Conversation]
) -> None:
    results = {}
    for recompute in (False, True):
        policy = fresh(gradient_checkpointing=recompute)
        acts = policy.act(requests("text", contexts[1], n=3), SAMPLINGS["plain"])
        attention = policy.model.model.language_model.layers[0].self_attn
        calls: list[bool] = []
        attention.register_forward_hook(lambda module, *_, calls=calls: calls.append(module.training))
        replays = policy.replay(acts)
        forwards = len(calls)
        gradients = torch.autograd.grad(sum(r.log_probs.sum() for r in replays), list(policy.trainable().values()))
        assert len(calls) == (2 * forwards if recompute else forwards)  # the backward pass computes the layer again
        assert not any(calls)  # without dropout
        results[recompute] = ([r.log_probs.detach() for r in replays], gradients)
    assert worst(results[True][0], results[False][0]) < ATOL
    assert worst(results[True][1], results[False][1]) < ATOL


def test_autocast_stays_near(
    fresh: Callable[..., JanusPolicy], policy: JanusPolicy, contexts: list[Conversation]
) -> None:
    exact, policy = policy, fresh(dtype="bfloat16")
    acts = policy.act(requests("text", *contexts), SAMPLINGS["plain"])
    acts += policy.act(requests("image", contexts[0]), SAMPLINGS["plain"])
    replayed = policy.log_probs(acts)
    assert all(r.dtype == torch.float32 for r in replayed)
    assert worst(replayed, [act.log_probs for act in acts]) < BFLOAT16_ATOL
    assert 1e-4 < worst(replayed, exact.log_probs(acts)) < BFLOAT16_ATOL
    guided = policy.act(requests("image", contexts[0]), SAMPLINGS["guided"])  # u + 3 (c - u): 5 roundings
    assert worst(policy.log_probs(guided), [act.log_probs for act in guided]) < 5 * BFLOAT16_ATOL


# ---- randomness ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), [("text", "plain"), ("image", "guided")])
def test_sampling_in_parts_changes_no_sample(
    fresh: Callable[..., JanusPolicy],
    contexts: list[Conversation],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    name: str,
) -> None:
    asked = requests(kind, *contexts[:2], n=4)
    whole = fresh().act(asked, SAMPLINGS[name])
    policy, sizes = fresh(generation_batch_size=3), []

    def counted(*arguments: object, uniforms: torch.Tensor, **settings: object) -> object:
        sizes.append(len(uniforms))
        return decode(*arguments, uniforms=uniforms, **settings)

    monkeypatch.setattr(sampling_module, "decode", counted)
    parts = policy.act(asked, SAMPLINGS[name])
    assert sizes == [3, 3, 2]
    assert [act.ids.tolist() for act in parts] == [act.ids.tolist() for act in whole]
    assert worst([act.log_probs for act in parts], [act.log_probs for act in whole]) < ATOL
    assert len({id(act.encoding) for act in parts}) == 2  # siblings still share their prefix in replay


def test_more_answers_leave_the_first_ones_as_they_were(policy: JanusPolicy) -> None:
    few, many = policy.generate_text("what?", n=2, max_tokens=6), policy.generate_text("what?", n=5, max_tokens=6)
    assert [act.text for act in few] == [act.text for act in many[:2]]
    assert len({act.text for act in many}) > 1
    assert policy.generate_text("what?", max_tokens=6, seed=1)[0].text != few[0].text


# ---- contexts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["<image_placeholder>", "<begin_of_image>", "<｜end▁of▁sentence｜>", "<|User|>"])
def test_words_of_users_and_models_never_become_special(policy: JanusPolicy, word: str) -> None:
    special = policy.encoder.tokenizer.convert_tokens_to_ids(word)
    for context in (user(f"a {word} b"), user("a") + assistant(f"{word}") + user(f"{word}{word}")):
        ids = policy.generate_text(context, max_tokens=1)[0].encoding.ids.tolist()
        clean = policy.generate_text(Conversation(tuple(stripped(m, word) for m in context.messages)), max_tokens=1)[0]
        assert ids.count(special) == clean.encoding.ids.tolist().count(special)
        assert word in policy.encoder.tokenizer.decode([i for i in ids if i != special])
    target = policy.encode_targets(requests("text", user("a"), n=1), [f"so {word}"])[0]
    assert target.ids.tolist().count(special) == (word == "<｜end▁of▁sentence｜>")


def stripped(message: Message, word: str) -> Message:
    return Message(message.role, tuple(Text(part.text.replace(word, "w")) for part in message.parts))


def test_role_markers_are_single_tokens(policy: JanusPolicy) -> None:
    ids = policy.generate_images("a star")[0].encoding.ids.tolist()
    names = policy.encoder.tokenizer.convert_ids_to_tokens(ids)
    assert names[:2] == ["<｜begin▁of▁sentence｜>", "<|User|>"]
    assert names[-3:] == ["<|Assistant|>", ":", "<begin_of_image>"]


def test_an_image_placeholder_that_the_model_wrote_is_a_word(policy: JanusPolicy, image: Image.Image) -> None:
    act = policy.generate_text("what?", [image], max_tokens=4, seed=1)[0]
    ids = act.ids.clone()
    assert ids[0] != policy.encoder.image_id
    ids[0] = policy.encoder.image_id
    forced = dataclasses.replace(act, ids=ids)
    replayed = policy.replay([forced])[0].log_probs.detach()
    assert worst([replayed], [teacher_forced(policy, forced)]) < ATOL
    assert worst([replayed[1:]], [act.log_probs[1:]]) > ATOL


def test_a_prompt_that_does_not_fit_is_refused(policy: JanusPolicy) -> None:
    length = len(policy.generate_text("a", max_tokens=1)[0].encoding.ids)
    room = policy.encoder.max_positions + 1 - length  # the last action is never read
    act = policy.generate_text("a", max_tokens=room, temperature=3.0)[0]
    assert len(policy.log_probs([act])[0]) == act.num_actions
    with pytest.raises(ContextError, match=r"The prompt has \d+ tokens and its act may add 161") as caught:
        policy.generate_text("a", max_tokens=161)
    assert "\n" not in str(caught.value) and "sampling.text.max_tokens" in caught.value.fix
    with pytest.raises(ContextError, match="the model holds 160: 'star star") as caught:
        policy.generate_images("star " * 200)
    assert "max_tokens" not in caught.value.fix


def test_a_template_that_drops_pictures_is_refused(policy: JanusPolicy, image: Image.Image) -> None:
    encoder = ContextEncoder(policy.processor, 160)
    encoder.template = "{% for m in messages %}{{ m['content'][-1]['text'] }}{% endfor %}"
    with pytest.raises(CheckpointError, match="shows 0 of 1 images"):
        encoder.encode(user(image, "what?"), max_new_tokens=1)


def test_a_template_that_refuses_is_a_data_error(policy: JanusPolicy) -> None:
    encoder = ContextEncoder(policy.processor, 160)
    encoder.template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match=r"rejects a conversation of user, user: roles must alternate\."):
        encoder.encode(user("a") + user("b"), max_new_tokens=1)


# ---- supervision --------------------------------------------------------------------------------------------------


def test_demonstrated_text_costs_what_transformers_says(policy: JanusPolicy, image: Image.Image) -> None:
    asked = Request("text", "answer", user(image, "what colour is it?"), (0,), trained=False)
    act = policy.encode_targets([asked], ["<think>three</think> red"])[0]
    assert (act.text, act.finished, act.name, act.trained) == ("<think>three</think> red", True, "answer", False)
    assert act.ids[-1] == policy.encoder.eos_id and act.log_probs is None
    context = act.encoding.ids
    labels = torch.cat([torch.full_like(context, -100), act.ids])
    theirs = policy.model(
        input_ids=torch.cat([context, act.ids])[None], pixel_values=act.encoding.pixels, labels=labels[None]
    ).loss
    ours = -policy.replay([act])[0].log_probs.mean()
    assert worst([ours], [theirs]) < ATOL
    assert theirs.item() > 1.0


def test_demonstrated_pictures_are_their_nearest_codes(policy: JanusPolicy, image: Image.Image) -> None:
    other = Image.new("L", (16, 16), 200)
    acts = policy.encode_targets(requests("image", user("it"), user("other"), n=1), [image, other])
    vq = policy.model.model.vqmodel
    for act, given in zip(acts, [image, other], strict=True):
        side, left, top = min(given.size), (given.width - min(given.size)) // 2, (given.height - min(given.size)) // 2
        square = given.convert("RGB").crop((left, top, left + side, top + side))
        pixels = policy.processor.image_processor(images=[square], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            latents = F.normalize(vq.quant_conv(vq.encoder(pixels)), dim=1).flatten(2)[0].T
            nearest = torch.cdist(latents, F.normalize(vq.quantize.embedding.weight, dim=1)).argmin(dim=1)
        assert act.ids.tolist() == nearest.tolist()
        assert act.image.mode == "RGB"
        assert worst(policy.log_probs([act]), [teacher_forced(policy, act)]) < ATOL
    assert acts[0].ids.tolist() != acts[1].ids.tolist()


def test_a_blank_demonstration_is_scored_as_the_unconditional_branch(policy: JanusPolicy, image: Image.Image) -> None:
    guided = policy.generate_images("a red star", guidance="guided", guidance_scale=2.0)[0]
    (asked,) = requests("image", guided.context, n=1)
    (drop_prompt,) = policy.encode_targets([dataclasses.replace(asked, drop_prompt=True)], [image])
    (shown,) = policy.encode_targets([asked], [image])
    assert torch.equal(drop_prompt.encoding.ids, guided.encoding.null_ids) and drop_prompt.encoding.null_ids is None
    # u + s (c - u) is u as s goes to 0.
    almost = Sampling(guidance="guided", guidance_scale=1e-7)
    mixed = dataclasses.replace(shown, sampling=almost, encoding=guided.encoding)
    assert worst(policy.log_probs([drop_prompt]), policy.log_probs([mixed])) < ATOL
    assert worst(policy.log_probs([drop_prompt]), policy.log_probs([shown])) > 0.1


def test_demonstrations_of_both_kinds_keep_their_order(policy: JanusPolicy, image: Image.Image) -> None:
    kinds = ["text", "image", "text"]
    acts = policy.encode_targets([Request(k, k, user("a"), (0,)) for k in kinds], ["one", image, "two"])
    assert [act.kind for act in acts] == kinds
    assert (acts[0].text, acts[2].text) == ("one", "two")


# ---- what trains --------------------------------------------------------------------------------------------------


def test_only_the_chosen_parts_train(fresh: Callable[..., JanusPolicy]) -> None:
    policy = fresh(train=("generation_head",))
    assert policy.trainable() and all(name.startswith("model.generation_head.") for name in policy.trainable())
    policy.train_parts(["language_model", "lm_head"])
    assert {name.split(".")[0] + "." + name.split(".")[1] for name in policy.trainable()} == {
        "model.language_model",
        "lm_head.weight",
    }
    acts = policy.generate_images("a star", n=2)
    sum(r.log_probs.sum() for r in policy.replay(acts)).backward()
    assert {n for n, p in policy.model.named_parameters() if p.grad is not None} == set(policy.trainable()) - {
        "lm_head.weight"
    }


@pytest.mark.parametrize("part", ["generation_aligner", "generation_embeddings"])
def test_one_half_of_the_code_table_may_train_alone(fresh: Callable[..., JanusPolicy], part: str) -> None:
    """What trains is float32, the other half as coarse as it is stored."""
    policy = fresh(train=("language_model", "lm_head"), dtype="bfloat16")
    policy.model.to(torch.bfloat16)
    policy.train_parts(["language_model", "lm_head", part])
    (act,) = policy.generate_images("a star")
    assert len(act.ids) == policy.num_image_tokens


def test_replay_is_as_fine_for_pictures_as_for_words(
    fresh: Callable[..., JanusPolicy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever comes first in a micro-batch: the autocast aligner's bfloat16 must not become the type of all."""
    policy = fresh(train=("language_model", "lm_head"), dtype="bfloat16")
    acts = [*policy.generate_images("a star", n=3), *policy.generate_text("why?", n=3, max_tokens=4)]
    seen: list[torch.dtype] = []
    plain = torch.nn.Module.__call__

    def watched(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if module is policy.model.model.language_model:
            seen.append(kwargs["inputs_embeds"].dtype)
        return plain(module, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "__call__", watched)
    policy.replay(acts)
    assert len(seen) == 2 and set(seen) == {torch.float32}


def test_an_unknown_part_is_refused(fresh: Callable[..., JanusPolicy]) -> None:
    with pytest.raises(ConfigError, match=r"'languge_model'.*Did you mean 'language_model'\?"):
        fresh(train=("languge_model",))


def test_tied_embeddings_train_if_either_part_does(fresh: Callable[..., JanusPolicy]) -> None:
    policy = fresh()
    policy.model.lm_head.weight = policy.model.model.language_model.embed_tokens.weight
    for part in ("language_model", "lm_head"):
        policy.train_parts([part])
        assert policy.model.lm_head.weight.requires_grad


def test_a_stored_bfloat16_checkpoint_computes_in_the_type_it_was_asked_for(
    fresh: Callable[..., JanusPolicy], tmp_path_factory: pytest.TempPathFactory, contexts: list[Conversation]
) -> None:
    """Published weights are bfloat16: what trains becomes float32, and the types must not meet unprepared."""
    half, resaved = (tmp_path_factory.mktemp("dtype") / name for name in ("half", "resaved"))
    policy = fresh()
    policy.model.to(torch.bfloat16)
    policy.save(half)
    full = load_policy(half, PolicyConfig(path=str(half), device="cpu"))
    assert {p.dtype for p in full.model.parameters()} == {torch.float32}
    mixed = load_policy(half, PolicyConfig(path=str(half), device="cpu", dtype="bfloat16"))
    assert {p.dtype for p in mixed.trainable().values()} == {torch.float32}
    assert {p.dtype for p in mixed.model.parameters()} == {torch.float32, torch.bfloat16}
    for policy in (full, mixed):
        acts = policy.act(requests("text", *contexts, n=1), SAMPLINGS["plain"])
        acts += policy.act(requests("image", contexts[0], n=1), SAMPLINGS["plain"])
        bound = ATOL if policy is full else BFLOAT16_ATOL
        assert worst(policy.log_probs(acts), [act.log_probs for act in acts]) < bound
    with torch.no_grad():
        mixed.model.lm_head.weight.add_(1e-6)  # lost in bfloat16
    mixed.save(resaved)
    again = load_policy(resaved, PolicyConfig(path=str(resaved), device="cpu", dtype="bfloat16"))
    assert all(torch.equal(p, again.trainable()[name]) for name, p in mixed.trainable().items())


# ---- the contract -------------------------------------------------------------------------------------------------


def test_cost_counts_both_branches(policy: JanusPolicy) -> None:
    plain, guided = (
        policy.generate_images("a star")[0],
        policy.generate_images("a star", guidance="guided", guidance_scale=2.0)[0],
    )
    assert policy.num_tokens(guided) == 2 * policy.num_tokens(plain) == 2 * (len(plain.encoding.ids) + 16)


def test_the_notebook_door(policy: JanusPolicy, image: Image.Image) -> None:
    about = policy.generate_text(["what?", user("and now?")], [image, image], n=2, max_tokens=3)
    assert len(about) == 4 and all(act.encoding.pixels is not None for act in about)
    assert policy.generate_text("what?", image, max_tokens=3)[0].text == about[0].text
    assert about[2].context.to_chat()[0]["content"][0]["type"] == "image"
    with pytest.raises(DataError, match="1 images for 2 prompts"):
        policy.generate_text(["a", "b"], [image])
    with pytest.raises(TypeError, match="temprature"):
        policy.generate_images("a", temprature=1.0)
