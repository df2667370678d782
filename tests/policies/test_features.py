"""Janus's features: where the parts lie, and that the batch changes nothing."""

import pytest
import torch
from PIL import Image

from motet.core.conversation import assistant, user
from motet.core.errors import CheckpointError
from motet.core.protocols import FeaturePolicy
from motet.policies.janus.features import part_spans

CAPTIONS = ["two red circles", "a blue star left of a green square", "x", "<image_placeholder> <answer>B</answer>"]


def words(policy, conversation, part):
    """What the tokens of a part's span spell."""
    encoding = policy.encoder.encode(conversation, max_new_tokens=1)
    span = part_spans(policy.encoder, conversation, encoding.ids.tolist())[part]
    return policy.encoder.tokenizer.decode(encoding.ids[span.start : span.stop], skip_special_tokens=False)


def test_janus_shows_its_features(policy):
    assert isinstance(policy, FeaturePolicy)


@pytest.mark.parametrize("caption", CAPTIONS)
def test_spans_are_the_picture_and_the_caption(policy, image, caption):
    shown = user(image, caption)
    encoding = policy.encoder.encode(shown, max_new_tokens=1)
    ids = encoding.ids.tolist()
    image_span, text_span = part_spans(policy.encoder, shown, ids)
    assert len(image_span) == policy.num_image_tokens
    assert {n for n, token in enumerate(ids) if token == policy.encoder.image_id} == set(image_span)
    assert words(policy, shown, 1).strip() == caption
    assert text_span.stop < len(ids)  # the template's tail is not the caption


def test_spans_follow_the_parts_of_several_turns(policy, image):
    other = Image.new("RGB", (8, 8), "green")
    shown = user("what colour is it?", image, "  ") + assistant("red") + user(other, "draw two red circles\n")
    assert [words(policy, shown, n).strip() for n in (0, 2, 3, 5)] == [
        "what colour is it?",
        "",
        "red",
        "draw two red circles",
    ]
    encoding = policy.encoder.encode(shown, max_new_tokens=1)
    spans = part_spans(policy.encoder, shown, encoding.ids.tolist())
    assert [len(spans[n]) for n in (1, 4)] == [policy.num_image_tokens] * 2
    assert spans[1].stop < spans[3].start < spans[4].start


def test_hidden_states_are_transformers_own(policy, image):
    shown = user(image, "two red circles")
    encoding = policy.encoder.encode(shown, max_new_tokens=1)
    (found,) = policy.features([shown])
    with torch.no_grad():
        wanted = policy.model.model(input_ids=encoding.ids[None], pixel_values=encoding.pixels).last_hidden_state[0]
    torch.testing.assert_close(found.hidden, wanted, atol=1e-5, rtol=1e-5)
    assert not found.hidden.requires_grad and policy.features([]) == []


def test_the_batch_changes_nothing(policy, image):
    shown = [user(image, caption) for caption in CAPTIONS] + [user("what colour is it?")]
    together = policy.features(shown)
    for conversation, batched in zip(shown, together, strict=True):
        (alone,) = policy.features([conversation])
        assert alone.spans == batched.spans
        torch.testing.assert_close(alone.hidden, batched.hidden, atol=1e-5, rtol=1e-5)


def test_ids_of_another_conversation_are_refused(policy):
    ids = policy.encoder.encode(user("red"), max_new_tokens=1).ids.tolist()
    with pytest.raises(CheckpointError, match="in two ways"):
        part_spans(policy.encoder, user("blue"), ids)
