"""An Emu3 policy: its prompts, tokens and log-probs are those of transformers' own processor, `generate` and forward.

Bounds: float32 sampling, replay and transformers' forward pass agree within 1e-4 in log-probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import Emu3ForConditionalGeneration, Emu3Processor

from motet.config import PolicyConfig
from motet.core.conversation import Conversation, assistant, user
from motet.core.errors import CheckpointError, ContextError
from motet.core.protocols import ReconstructingPolicy, Request
from motet.core.trajectory import Act, ImageTokens, Sampling
from motet.policies import load_policy
from motet.policies.emu3 import Emu3Policy
from motet.policies.emu3.policy import open_emu3
from motet.policies.tiny.emu3 import TinyEmu3Sizes, make_tiny_emu3
from motet.weights.hf_output import suppress_hf_output
from tests.policies.teacher import truncated
from tests.runs import mapping, run_loop

ATOL = 1e-4
WORDS = ["two red circles", "a blue star left of a green square", "what colour is it?", "USER: ASSISTANT:", "4*4"]
GUIDED = {"guidance": "guided", "guidance_scale": 3.0}
SAMPLINGS = [
    Sampling(max_tokens=10),
    Sampling(max_tokens=10, temperature=0.7, top_k=20, top_p=0.8),
    Sampling(max_tokens=10, min_p=0.3),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny Emu3 whose images have 4 rows of 4 tokens, of 64 codes."""
    model, processor = make_tiny_emu3(WORDS)
    torch.nn.init.normal_(model.lm_head.weight, std=0.35)
    path = tmp_path_factory.mktemp("tiny") / "emu3"
    with suppress_hf_output():
        model.save_pretrained(path)
        processor.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def policy(folder: Path) -> Emu3Policy:
    """For tests that leave it as it was."""
    return load_policy(folder, PolicyConfig(path=str(folder), device="cpu"))


@pytest.fixture(scope="module")
def theirs(folder: Path) -> tuple[Emu3ForConditionalGeneration, Emu3Processor]:
    """The folder as transformers opens it."""
    model, processor = open_emu3(str(folder), torch.float32)
    return model, processor


def requests(kind: Any, *contexts: Conversation, n: int = 2) -> list[Request]:
    return [Request(kind, kind, context, (7, k, g)) for k, context in enumerate(contexts) for g in range(n)]


def worst(ours: Sequence[Any], expected: Sequence[Any]) -> float:
    return max(float((a - b).detach().abs().max()) for a, b in zip(ours, expected, strict=True))


def whole_ids(policy: Emu3Policy, act: Act) -> tuple[Tensor, Tensor]:
    """What follows the prompt in transformers' own sequence of tokens, and which of them are actions."""
    assert hasattr(act, "ids")
    if not isinstance(act, ImageTokens):
        return act.ids, torch.ones(len(act.ids), dtype=torch.bool)  # type: ignore[attr-defined]
    height = width = 4
    tokens = policy.model.vocabulary_mapping.convert_img2bpe(act.ids.view(height, width))
    return tokens.flatten().long(), torch.tensor(([True] * width + [False]) * height)


@torch.no_grad()
def teacher_forced(policy: Emu3Policy, act: Act) -> Tensor:
    """`[N]` log-probs of the act's scoring distribution by transformers' own forward pass over ids."""
    following, actions = whole_ids(policy, act)
    branches = []
    for prompt in (act.encoding.ids, act.encoding.null_ids if act.sampling.guidance == "guided" else act.encoding.ids):
        logits = policy.model(input_ids=torch.cat([prompt, following])[None]).logits[0, len(prompt) - 1 : -1]
        branches.append(logits[actions])
    scale = act.sampling.guidance_scale if act.sampling.guidance == "guided" else 1.0
    logits = branches[1] + scale * (branches[0] - branches[1])
    tokens = following[actions]
    if isinstance(act, ImageTokens):
        logits, tokens = logits[:, policy.model.vocabulary_mapping.image_tokens], act.ids
    probs = torch.softmax(logits / (act.sampling.temperature or 1.0), dim=-1)
    probs = truncated(probs, act.sampling.top_k, act.sampling.top_p, act.sampling.min_p)
    return probs.gather(1, tokens.unsqueeze(1)).squeeze(1).log()


def contexts(image: Image.Image) -> list[Conversation]:
    asked = user(image, "what colour is it?")
    return [user("two red circles"), asked, asked + assistant("red") + user("a blue star")]


def test_prompts_are_those_of_transformers_processor(policy: Emu3Policy, theirs: Any, image: Image.Image) -> None:
    model, processor = theirs
    for context in contexts(image):
        chat = processor.apply_chat_template(context.to_chat(), add_generation_prompt=True, tokenize=False)
        inputs = processor(text=[chat], images=context.images or None, return_tensors="pt")
        expected = inputs["input_ids"][0]
        if context.images:
            places = expected == model.vocabulary_mapping.image_token_id
            expected[places] = model.model.get_image_tokens(inputs["pixel_values"], inputs["image_sizes"]).long()
        assert policy.encoder.encode(context, max_new_tokens=1).ids.tolist() == expected.tolist()
    inputs = processor(text="a blue star", return_for_image_generation=True, image_area=32 * 32, return_tensors="pt")
    prompt = policy.encoder.encode(user("a blue star"), kind="image", max_new_tokens=1, with_null=True)
    assert prompt.ids.tolist() == inputs["input_ids"][0].tolist() and inputs["image_sizes"] == [[4, 4]]
    empty = processor(text="", return_for_image_generation=True, image_area=32 * 32, return_tensors="pt")
    assert prompt.null_ids is not None and prompt.null_ids.tolist() == empty["input_ids"][0].tolist()


def test_greedy_text_is_that_of_transformers_generate(policy: Emu3Policy, theirs: Any, image: Image.Image) -> None:
    model, processor = theirs
    (act,) = policy.generate_text("what colour is it?", images=image, max_tokens=12, temperature=0.0)
    chat = processor.apply_chat_template(act.context.to_chat(), add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[chat], images=[image], return_tensors="pt")
    generated = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert act.ids.tolist() == generated.tolist()[: len(act.ids)] and len(act.ids) > 3


def allowed_tokens(model: Any, tokenizer: Any, height: int, width: int) -> Callable[[int, Tensor], list[int]]:
    """The grammar of images as the documentation of transformers' Emu3 has it."""

    def allowed(_: int, ids: Tensor) -> list[int]:
        offset = len(ids) - int((ids == tokenizer.image_wrapper_token_id).nonzero()[0, 0])
        last = (width + 1) * height
        if offset > last:
            return [{1: tokenizer.eof_token_id, 2: tokenizer.eoi_token_id}.get(offset - last, tokenizer.eos_token_id)]
        if offset % (width + 1) == 0:
            return [model.vocabulary_mapping.eol_token_id]
        return model.vocabulary_mapping.image_tokens

    return allowed


@pytest.mark.parametrize("guidance", [{}, GUIDED])
def test_greedy_images_are_those_of_transformers_generate(policy: Emu3Policy, theirs: Any, guidance: Any) -> None:
    model, processor = theirs
    (act,) = policy.generate_images("a blue star", temperature=0.0, **guidance)
    prompt = {"return_for_image_generation": True, "image_area": 32 * 32, "return_tensors": "pt"}
    inputs = processor(text="a blue star", **prompt)
    ((height, width),) = inputs.pop("image_sizes")
    settings: dict[str, Any] = {}
    if guidance:
        negative = processor(text="", **prompt)
        settings = {"guidance_scale": 3.0, "negative_prompt_ids": negative["input_ids"]}
        settings["negative_prompt_attention_mask"] = negative["attention_mask"]
    generated = model.generate(
        **inputs,
        max_new_tokens=(width + 1) * height + 3,
        do_sample=False,
        prefix_allowed_tokens_fn=allowed_tokens(model, processor.tokenizer, height, width),
        **settings,
    )[:, inputs["input_ids"].shape[1] :]
    assert whole_ids(policy, act)[0].tolist() == generated[0, :-3].tolist()
    assert isinstance(act, ImageTokens) and len(set(act.ids.tolist())) > 3
    pixels = model.decode_image_tokens(image_tokens=generated, height=height, width=width)
    (decoded,) = processor.postprocess(list(pixels.float()), return_tensors="PIL.Image.Image")["pixel_values"]
    assert act.image.tobytes() == decoded.tobytes() and act.image.size == (32, 32)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("guidance", [{}, GUIDED])
def test_acts_replay_as_sampled_and_as_transformers_scores_them(
    policy: Emu3Policy, image: Image.Image, sampling: Sampling, guidance: Any
) -> None:
    guided = Sampling(**{**vars(sampling), **guidance})
    acts = policy.act(requests("text", *contexts(image)), sampling)
    acts += policy.act(requests("image", *contexts(image)), guided)
    expected = [teacher_forced(policy, act) for act in acts]
    assert worst([act.log_probs for act in acts], expected) < ATOL
    assert worst(policy.log_probs(acts), expected) < ATOL
    assert worst(policy.log_probs(acts[::-3]), expected[::-3]) < ATOL
    assert worst([policy.log_probs([act])[0] for act in acts[6:8]], expected[6:8]) < ATOL
    assert {policy.num_tokens(act) - len(act.encoding.ids) for act in acts[-2:]} == (
        {19} if not guidance else {19 + len(acts[-1].encoding.ids) + 19}
    )


def test_targets_are_the_images_codes(policy: Emu3Policy, image: Image.Image) -> None:
    assert isinstance(policy, ReconstructingPolicy)
    target, text = policy.encode_targets(
        [*requests("image", user("a star"), n=1), *requests("text", user("what?"), n=1)], [image, "red"]
    )
    assert isinstance(target, ImageTokens)
    assert worst(policy.log_probs([target]), [teacher_forced(policy, target)]) < ATOL
    assert text.num_actions == len(policy.encoder.text_ids("red")) + 1
    ((given, decoded),) = policy.reconstruct([image])
    assert given.size == decoded.size == (32, 32)
    (again,) = policy.encode_images([given])
    assert again.tolist() == target.ids.tolist()


def test_what_is_saved_loads_in_transformers_and_here(policy: Emu3Policy, tmp_path: Path) -> None:
    policy.save(tmp_path)
    with suppress_hf_output():
        model = Emu3ForConditionalGeneration.from_pretrained(tmp_path)
    assert all(torch.equal(w, model.state_dict()[name]) for name, w in policy.model.state_dict().items())
    again = load_policy(tmp_path, PolicyConfig(path=str(tmp_path), device="cpu"))
    acts = policy.generate_images("a star", **GUIDED)
    assert all(torch.equal(a, b) for a, b in zip(again.log_probs(acts), policy.log_probs(acts), strict=True))


def test_what_does_not_fit_is_rejected(policy: Emu3Policy) -> None:
    room = policy.encoder.max_positions - len(policy.encoder.encode(user(""), kind="image", max_new_tokens=1).ids)
    with pytest.raises(ContextError, match="its act may add 19"):
        policy.generate_images("star " * room)
    model, processor = make_tiny_emu3(WORDS, sizes=TinyEmu3Sizes(codes=32))
    model.config.vq_config.codebook_size = 64
    with pytest.raises(CheckpointError, match="names 32 visual tokens; there must be 64"):
        Emu3Policy(model, processor)


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_a_grpo_step_trains_text_and_image_acts(folder: Path, tmp_path: Path, lora: Any) -> None:
    if lora:
        pytest.importorskip("peft")
    before = load_policy(folder).trainable()
    recipe = mapping(
        folder,
        policy={"lora": lora},
        data={"source": "shapes", "options": {"canvas": 32, "grid": 2, "max_objects": 2, "max_count": 2}},
        run={"steps": 2},
    )
    seen = run_loop(recipe, tmp_path / "run")
    for kind in ("text", "image"):
        assert seen[0][f"{kind}/train_rollout_logprob_diff_max"] < ATOL
    assert all(step["grad_norm"] > 0 for step in seen)
    after = load_policy(tmp_path / "run").trainable()
    if lora:
        assert after and all("text_model" in name and ".lora_" in name for name in after)
        assert all(bool(weight.any()) for weight in after.values())
    else:
        assert all(not torch.equal(after[name], weight) for name, weight in before.items())
