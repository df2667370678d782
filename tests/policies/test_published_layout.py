"""Checkpoints in the published layout of Janus-Pro load, and see exactly what transformers' own processor sees."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import JanusForConditionalGeneration, JanusProcessor

from motet.config import PolicyConfig
from motet.core.conversation import Conversation, assistant, from_chat, user
from motet.policies import load_policy
from motet.policies.janus import JanusPolicy
from motet.policies.tiny.janus import BEGIN_IMAGE, BOS, END_IMAGE, EOS, IMAGE, PAD
from motet.weights.hf_output import suppress_hf_output
from tests.policies.published import publish
from tests.policies.teacher import sound_transformers, teacher_forced

ATOL = 1e-4


def open_at(folder: Path) -> JanusPolicy:
    return load_policy(folder, PolicyConfig(path=str(folder), device="cpu"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by size; the hub's processor_config.json switches the default system prompt on."""
    root = tmp_path_factory.mktemp("published")
    for size in ("1B", "7B"):
        publish(root / size, size, use_default_system_prompt=size == "1B")
    return {size: root / size for size in ("1B", "7B")}


@pytest.fixture(scope="module")
def policies(published: dict[str, Path]) -> dict[str, JanusPolicy]:
    return {size: open_at(folder) for size, folder in published.items()}


@pytest.fixture(scope="module")
def theirs(published: dict[str, Path]) -> dict[str, Any]:
    with suppress_hf_output():
        return {size: JanusProcessor.from_pretrained(folder) for size, folder in published.items()}


def chats(photo: Image.Image) -> dict[str, list[dict[str, Any]]]:
    shown, question = {"type": "image", "image": photo}, {"type": "text", "text": "What is in the image?"}
    return {
        "text": [{"role": "user", "content": [{"type": "text", "text": "A photo of 12 red circles, naïve 图片"}]}],
        "edges": [{"role": "user", "content": [{"type": "text", "text": "  two \n spaces\t "}]}],
        "blank": [{"role": "user", "content": [{"type": "text", "text": " \n"}]}],
        "letters": [{"role": "user", "content": [{"type": "text", "text": "søn über À la"}]}],
        "image": [{"role": "user", "content": [shown, question]}],
        "image last": [{"role": "user", "content": [question, {"type": "text", "text": " Look: "}, shown]}],
        "turns": [
            {"role": "user", "content": [shown, question]},
            {"role": "assistant", "content": [{"type": "text", "text": " A photo. "}]},
            {"role": "user", "content": [{"type": "text", "text": "And now?"}, shown]},
        ],
        "system": [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": [question]},
        ],
    }


@sound_transformers
@pytest.mark.parametrize("draws", [False, True], ids=["text", "image"])
@pytest.mark.parametrize("name", chats(Image.new("RGB", (1, 1))))
@pytest.mark.parametrize("size", ["1B", "7B"])
def test_ids_and_pixels_are_those_of_the_processor(
    policies: dict[str, JanusPolicy], theirs: dict[str, Any], image: Image.Image, size: str, name: str, draws: bool
) -> None:
    chat = chats(image)[name]
    mode = "image" if draws else "text"
    ours = policies[size].encoder.encode(from_chat(chat), kind="image" if draws else "text", max_new_tokens=1)
    rendered = theirs[size].apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    shown = [part["image"] for message in chat for part in message["content"] if part["type"] == "image"]
    expected = theirs[size](text=[rendered], images=shown or None, generation_mode=mode, return_tensors="pt")
    assert ours.ids.tolist() == expected["input_ids"][0].tolist()
    if shown:
        assert torch.equal(ours.pixels, expected["pixel_values"])
        assert ours.ids.tolist().count(policies[size].encoder.image_id) == 576 * len(shown)
    else:
        assert ours.pixels is None


def test_the_system_prompt_is_the_checkpoints_choice(policies: dict[str, JanusPolicy]) -> None:
    for size, greets in (("1B", True), ("7B", False)):
        encoder = policies[size].encoder
        assert encoder.processor.use_default_system_prompt is greets
        texts = [
            encoder.tokenizer.decode(
                encoder.encode(user("hi"), kind="image" if draws else "text", max_new_tokens=1).ids
            )
            for draws in (False, True)
        ]
        assert ["helpful language and vision assistant" in text for text in texts] == [greets, False]
        assert texts[1] == f"{BOS}<|User|>: hi\n\n<|Assistant|>:{BEGIN_IMAGE}"


def test_special_tokens_are_found_by_name(policies: dict[str, JanusPolicy]) -> None:
    small, large = policies["1B"].encoder, policies["7B"].encoder
    names = {"bos_id": BOS, "eos_id": EOS, "pad_id": PAD, "image_id": IMAGE, "begin_image_id": BEGIN_IMAGE}
    for role, name in {**names, "end_image_id": END_IMAGE}.items():
        for encoder in (small, large):
            assert encoder.tokenizer.convert_ids_to_tokens(getattr(encoder, role)) == name
    assert (large.bos_id, large.eos_id) == (small.bos_id, small.eos_id)
    assert (large.pad_id, large.image_id) == (small.pad_id + 13, small.image_id + 13)


def test_no_word_of_a_user_is_special(policies: dict[str, JanusPolicy]) -> None:
    encoder = policies["7B"].encoder
    words = [IMAGE, BEGIN_IMAGE, END_IMAGE, EOS, PAD, "<|User|>", "<|ref|>", "<patch_placeholder>"]
    ids = encoder.encode(user(" ".join(words)), max_new_tokens=1).ids.tolist()
    found = [name for name in words if encoder.tokenizer.convert_tokens_to_ids(name) in ids]
    assert found == ["<|User|>"] and ids.count(encoder.tokenizer.convert_tokens_to_ids("<|User|>")) == 1
    assert " ".join(words) in encoder.tokenizer.decode(ids)


def test_spaces_survive_the_class_name_of_the_tokenizer(policies: dict[str, JanusPolicy]) -> None:
    """transformers 5.0 to 5.22 take LlamaTokenizerFast at its word and lose them (its issue 45488)."""
    tokenizer = policies["1B"].encoder.tokenizer
    assert tokenizer.decode(tokenizer("A photo of two", add_special_tokens=False)["input_ids"]) == "A photo of two"


def test_heads_are_untied_although_the_config_does_not_say_so(policies: dict[str, JanusPolicy]) -> None:
    model = policies["1B"].model
    assert not torch.equal(model.lm_head.weight, model.model.language_model.embed_tokens.weight)
    assert model.config.tie_word_embeddings is False


def test_a_picture_of_576_tokens_replays_as_drawn(policies: dict[str, JanusPolicy]) -> None:
    policy = policies["7B"]
    acts = policy.generate_images("two red circles", guidance="guided", guidance_scale=2.0)
    replayed = policy.log_probs(acts)
    for act, again in zip(acts, replayed, strict=True):
        assert act.image.size == (384, 384) and len(act.ids) == 576 and int(act.ids.max()) > 8192
        assert float((again - act.log_probs).abs().max()) < ATOL
    assert float((teacher_forced(policy, acts[0]) - acts[0].log_probs).abs().max()) < ATOL
    act = policy.generate_text("What is in the image?", acts[0].image, max_tokens=8)[0]
    assert float((policy.log_probs([act])[0] - act.log_probs).abs().max()) < ATOL


def test_ids_beyond_the_tokenizer_are_no_text(policies: dict[str, JanusPolicy]) -> None:
    """The embedding has more rows than the tokenizer has tokens, and a model may sample any of them."""
    policy = policies["1B"]
    unknown = policy.model.config.text_config.vocab_size - 1
    assert policy.encoder.tokenizer.decode([unknown]) == ""
    with torch.no_grad():
        kept = policy.model.lm_head.weight[unknown].clone()
        policy.model.lm_head.weight[unknown] = 100.0 * policy.model.lm_head.weight.std()
    act = policy.generate_text("hi", max_tokens=16)[0]
    with torch.no_grad():
        policy.model.lm_head.weight[unknown] = kept
    assert unknown in act.ids


def test_a_saved_checkpoint_is_the_same_for_motet_and_for_transformers(
    policies: dict[str, JanusPolicy], theirs: dict[str, Any], tmp_path: Path, image: Image.Image
) -> None:
    policy = policies["1B"]
    weights = {name: weight.clone() for name, weight in policy.model.state_dict().items()}
    policy.save(tmp_path)
    again = open_at(tmp_path)
    reloaded = again.model.state_dict()
    assert weights.keys() == reloaded.keys() and all(torch.equal(w, reloaded[name]) for name, w in weights.items())
    with suppress_hf_output():
        model = JanusForConditionalGeneration.from_pretrained(tmp_path)
        processor = JanusProcessor.from_pretrained(tmp_path)
    assert all(torch.equal(w, model.state_dict()[name]) for name, w in weights.items())
    assert model.generation_config.generation_kwargs == {"boi_token_id": policy.encoder.begin_image_id}
    assert model.generation_config.pad_token_id == policy.encoder.pad_id
    context: Conversation = user(image, "What is in the image?") + assistant("A photo.") + user("And now?")
    rendered = processor.apply_chat_template(context.to_chat(), add_generation_prompt=True, tokenize=False)
    expected = processor(text=[rendered], images=[image], return_tensors="pt")["input_ids"][0].tolist()
    for one in (policy, again):
        ids = one.encoder.encode(context, max_new_tokens=1).ids
        assert ids.tolist() == expected
    assert processor.use_default_system_prompt is theirs["1B"].use_default_system_prompt is True


def test_the_fixture_is_shaped_like_the_published_one(published: dict[str, Path]) -> None:
    folder = published["1B"]
    config = json.loads((folder / "config.json").read_text())
    assert "tie_word_embeddings" not in config and config["torch_dtype"] == "bfloat16"
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    assert sum(file.stat().st_size for file in folder.iterdir()) < 60e6
