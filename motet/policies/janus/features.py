"""Last hidden states of Janus's language model: of a conversation, whose images go through vision tower and aligner,
and at image tokens that it drew.

Where each part lies is read off the encoding: an image is where the image placeholder's ids stand, a text is where the
tokenizer says that its characters went. No position is assumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from motet.core.conversation import Conversation, ImagePart
from motet.core.errors import CheckpointError
from motet.core.protocols import Features
from motet.core.trajectory import Encoding
from motet.numerics.transfers import to_device
from motet.policies.generation.chat_template import SENTINEL, with_sentinels
from motet.policies.generation.sampling import distinct
from motet.policies.janus.adapter import JanusAdapter
from motet.policies.janus.prompt_encoding import ContextEncoder


def features(adapter: JanusAdapter, conversations: Sequence[Conversation]) -> list[Features]:
    """Features of conversations in one pass. Raises ContextError for one that does not fit the model.

    Rows are padded on the right, where a causal model never looks: the batch changes nothing.
    """
    if not conversations:
        return []
    encodings = adapter.encoder.encode_all(conversations, max_new_tokens=1)
    rows = pad_sequence([prompt.vectors for prompt in adapter.embed_prompts(encodings)], batch_first=True)
    hidden: Tensor = adapter.language_model(inputs_embeds=rows, use_cache=False).last_hidden_state.float()
    return [
        Features(hidden[n, : len(encoding.ids)], part_spans(adapter.encoder, conversation, encoding.ids.tolist()))
        for n, (conversation, encoding) in enumerate(zip(conversations, encodings, strict=True))
    ]


def hidden_at(
    adapter: JanusAdapter, encodings: Sequence[Encoding], codes: Int[Tensor, "B N"]
) -> Float[Tensor, "B N D"]:
    """Hidden states at the image tokens that follow each context, in one pass; rows are padded on the right."""
    unique, places = distinct(encodings)
    prompts = adapter.embed_prompts(unique)
    generated = adapter.embed_image_tokens(to_device(codes, adapter.device))
    before = [prompts[place].vectors for place in places]
    rows = pad_sequence([torch.cat(pair) for pair in zip(before, generated, strict=True)], batch_first=True)
    hidden: Tensor = adapter.language_model(inputs_embeds=rows, use_cache=False).last_hidden_state
    return torch.stack([row[len(own) : len(own) + codes.shape[1]] for row, own in zip(hidden, before, strict=True)])


def part_spans(encoder: ContextEncoder, conversation: Conversation, ids: Sequence[int]) -> tuple[range, ...]:
    """Positions in `ids` of every part of the conversation, in order; an empty text has none.

    `ids` are the conversation's encoding, open for text. A token that spells both template and text belongs to the
    text. Raises CheckpointError when the tokenizer does not give the same ids again.
    """
    images = _image_spans(ids, encoder.image_id, encoder.processor.num_image_tokens)
    texts = _text_spans(encoder, conversation, ids)
    spans: list[range] = []
    number = 0
    for part in (part for message in conversation.messages for part in message.parts):
        if isinstance(part, ImagePart):
            spans.append(next(images))
        else:
            spans.append(texts.get(number, range(0)))
            number += 1
    return tuple(spans)


def _image_spans(ids: Sequence[int], image_id: int, length: int) -> Iterator[range]:
    place = 0
    while place < len(ids):
        if ids[place] == image_id:
            yield range(place, place + length)
            place += length
        else:
            place += 1


def _text_spans(encoder: ContextEncoder, conversation: Conversation, ids: Sequence[int]) -> dict[int, range]:
    """Text's number -> where its tokens lie: runs of plain ids are tokenised again, with the places of characters."""
    chat, texts, _ = with_sentinels(conversation)
    spans: dict[int, range] = {}
    runs = _plain_runs(ids, encoder)
    for piece in encoder.special_pattern.split(encoder.with_system_prompt(chat, "text"))[::2]:  # between special tokens
        written, places = _written(piece, texts)
        found = encoder.tokenizer(
            written, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )
        if not found["input_ids"]:
            continue
        run = next(runs, range(0))
        if found["input_ids"] != list(ids[run.start : run.stop]):
            raise CheckpointError(
                f"The tokenizer reads {written[:60]!r} in two ways.",
                fix="use the tokenizer files that belong to this Janus checkpoint.",
            )
        for number, (start, stop) in places.items():
            inside = [n for n, (a, b) in enumerate(found["offset_mapping"]) if a < stop and b > start]
            spans[number] = range(run.start + inside[0], run.start + inside[-1] + 1)
    return spans


def _plain_runs(ids: Sequence[int], encoder: ContextEncoder) -> Iterator[range]:
    """Maximal runs of ids that are not special."""
    special = {encoder.tokenizer.convert_tokens_to_ids(token) for token in encoder.special_tokens()}
    start = 0
    for place, token in enumerate([*ids, encoder.eos_id]):
        if token in special:
            if place > start:
                yield range(start, place)
            start = place + 1


def _written(piece: str, texts: Sequence[str]) -> tuple[str, dict[int, tuple[int, int]]]:
    """A piece of the rendered template with its texts put in; text's number -> the characters that it takes."""
    written, done = "", 0
    places: dict[int, tuple[int, int]] = {}
    for match in SENTINEL.finditer(piece):
        written += piece[done : match.start()]
        number = int(match[1])
        places[number] = (len(written), len(written) + len(texts[number]))
        written, done = written + texts[number], match.end()
    return written + piece[done:], places
