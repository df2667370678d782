"""What a vision-language policy makes of a conversation: the template's layout, words that stay words, patches."""

import dataclasses
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from PIL import Image

from motet.core.conversation import Conversation, Message, Text, assistant, user
from motet.core.errors import CheckpointError, ContextError, DataError
from motet.policies.qwen_vl import VlmPolicy
from motet.policies.qwen_vl.prompt_encoding import VlmEncoder
from tests.policies.vlms import conversations, requests


def test_texts_are_laid_out_as_the_tokenizer_does(vlm: VlmPolicy) -> None:
    context = Conversation((Message("system", (Text("a blue star"),)),)) + user("what colour?") + assistant("red")
    context += user("left of it?")
    theirs = vlm.encoder.tokenizer.apply_chat_template(context.to_chat(), add_generation_prompt=True)["input_ids"]
    ours = vlm.encoder.encode(context, max_new_tokens=1)
    assert ours.ids.tolist() == theirs and ours.pixels is None and ours.image_sizes is None


def test_pictures_take_one_token_for_every_merged_patch(vlm: VlmPolicy) -> None:
    context = conversations()[2]
    encoding = vlm.encoder.encode(context, max_new_tokens=1)
    assert encoding.image_sizes.tolist() == [[1, 16, 6], [1, 8, 12]]
    tokenizer, rendered = vlm.encoder.tokenizer, ""
    pieces = tokenizer.apply_chat_template(context.to_chat(), add_generation_prompt=True, tokenize=False)
    for piece, count in zip(pieces.split("<|image_pad|>"), [24, 24, 0], strict=True):
        rendered += piece + "<|image_pad|>" * count
    assert encoding.ids.tolist() == tokenizer(rendered)["input_ids"]
    images = [part["image"] for turn in context.to_chat() for part in turn["content"] if part["type"] == "image"]
    expected = vlm.processor.image_processor(images=images, return_tensors="pt")
    assert torch.equal(encoding.pixels, expected["pixel_values"])
    assert torch.equal(encoding.image_sizes, expected["image_grid_thw"])
    assert encoding.pixels.shape == (16 * 6 + 8 * 12, 3 * 2 * 4 * 4)


def test_positions_are_those_of_the_model(vlm: VlmPolicy) -> None:
    encoding = vlm.encoder.encode(conversations()[1], max_new_tokens=1)
    (context,) = vlm.adapter.embed_prompts([encoding])
    start = encoding.ids.tolist().index(vlm.encoder.image_id)
    text_before, text_after = start, len(encoding.ids) - start - 16
    places = torch.arange(16)
    stand = torch.stack([torch.zeros_like(places), places // 4, places % 4]) + start  # time, height, width
    before, after = torch.arange(text_before).expand(3, -1), torch.arange(text_after).expand(3, -1) + start + 4
    assert torch.equal(context.positions, torch.cat([before, stand, after], dim=1))
    assert context.next_position == start + 4 + text_after
    assert len(context.deep) == (vlm.model.config.model_type == "qwen3_vl")


@pytest.mark.parametrize("word", ["<|image_pad|>", "<|vision_start|>", "<|im_end|>", "<|im_start|>", "<|endoftext|>"])
def test_words_of_users_and_models_never_become_special(vlm: VlmPolicy, word: str) -> None:
    special = vlm.encoder.tokenizer.convert_tokens_to_ids(word)
    for context in (user(f"a {word} b"), user("a") + assistant(f"{word}") + user(f"{word}{word}")):
        ids = vlm.generate_text(context, max_tokens=1)[0].encoding.ids.tolist()
        clean = Conversation(tuple(stripped(message, word) for message in context.messages))
        assert ids.count(special) == vlm.encoder.encode(clean, max_new_tokens=1).ids.tolist().count(special)
        assert word in vlm.encoder.tokenizer.decode([i for i in ids if i != special])
    target = vlm.encode_targets(requests(user("a"), n=1), [f"so {word}"])[0]
    assert target.ids.tolist().count(special) == (word == "<|im_end|>")


def stripped(message: Message, word: str) -> Message:
    return Message(message.role, tuple(Text(part.text.replace(word, "w")) for part in message.parts))


def test_a_conversation_that_occurs_again_is_encoded_once(vlm: VlmPolicy) -> None:
    one, other = conversations()[1:]
    first, second, third = vlm.encoder.encode_all([one, other, one], max_new_tokens=1)
    assert first is third and first is not second


# ---- what is refused ----------------------------------------------------------------------------------------------


def test_a_prompt_that_does_not_fit_is_refused(vlm: VlmPolicy) -> None:
    length = len(vlm.generate_text("a", max_tokens=1)[0].encoding.ids)
    room = vlm.encoder.max_positions + 1 - length  # the last action is never read
    act = vlm.generate_text("a", max_tokens=room, temperature=3.0)[0]
    assert len(vlm.log_probs([act])[0]) == act.num_actions
    with pytest.raises(ContextError, match=rf"The prompt has {length} tokens and its act may add {room + 1}") as caught:
        vlm.generate_text("a", max_tokens=room + 1)
    assert "\n" not in str(caught.value) and "sampling.text.max_tokens" in caught.value.fix
    with pytest.raises(ContextError, match="the model holds 160: 'star star"):
        vlm.encode_targets(requests(user("star " * 200), n=1), ["red"])


def test_a_strip_is_refused(vlm: VlmPolicy) -> None:
    with pytest.raises(DataError, match=r"402 x 2 pixels is more than 200 times the other"):
        vlm.encoder.encode(user(Image.new("RGB", (402, 2)), "what?"), max_new_tokens=1)


def test_templates_that_drop_pictures_or_refuse(vlm: VlmPolicy, image: Image.Image) -> None:
    encoder = VlmEncoder(vlm.processor, vlm.model.config)
    encoder.template = "{% for m in messages %}{{ m['content'][-1]['text'] }}{% endfor %}"
    with pytest.raises(CheckpointError, match="shows 0 of 1 images"):
        encoder.encode(user(image, "what?"), max_new_tokens=1)
    encoder.template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match=r"rejects a conversation of user, user: roles must alternate\."):
        encoder.encode(user("a") + user("b"), max_new_tokens=1)


def test_a_processor_of_another_model_is_refused(vlm: VlmPolicy) -> None:
    def altered(change: Callable[..., None]) -> str:
        processor = dataclasses.replace(vlm.processor, image_processor=deepcopy(vlm.processor.image_processor))
        processor = dataclasses.replace(processor, tokenizer=deepcopy(vlm.processor.tokenizer))
        config = deepcopy(vlm.model.config)
        change(processor, config)
        with pytest.raises(CheckpointError) as caught:
            VlmEncoder(processor, config)
        return str(caught.value)

    assert "patch_size=14" in altered(lambda p, _: setattr(p.image_processor, "patch_size", 14))
    merged = altered(lambda p, _: setattr(p.image_processor, "merge_size", 1))
    assert "merge_size=1, but config.json says vision_config.spatial_merge_size=2" in merged
    assert "image_token_id=9" in altered(lambda _, config: setattr(config, "image_token_id", 9))
    assert "has no chat template" in altered(lambda p, _: setattr(p.tokenizer, "chat_template", None))
    assert "image_token '<none>' is not in" in altered(lambda p, _: setattr(p.tokenizer, "image_token", "<none>"))
