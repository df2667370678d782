"""A conversation in a checkpoint's own chat template, as token ids: what the encoders of all families share.

Texts are inserted into the template *after* it is rendered and are tokenized with special tokens disabled, so a prompt
that spells the name of a special token stays plain text.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from jinja2 import TemplateError
from PIL import Image
from torch import Tensor

from motet.core.conversation import Conversation, ImagePart
from motet.core.errors import CheckpointError, ContextError, DataError
from motet.core.trajectory import Encoding

SENTINEL = re.compile("\ue000(\\d+)\ue001")  # private-use characters around a number: a text's place in the template

RENDER_SECONDS = 10.0
"""For one conversation; any template that ends takes milliseconds."""

T = TypeVar("T")


class ChatTemplateEncoder:
    """Encodes conversations by one checkpoint's chat template and tokenizer; ids are looked up by name.

    `renderer` has transformers' `apply_chat_template`: a processor or a tokenizer. `max_positions` is how many tokens
    fit the language model. `family` names the model in error messages. A subclass sets `image_token`, `image_id`,
    `eos_id` and, where prompts begin with it, `bos_id`.
    """

    image_token = ""
    image_id: int
    eos_id: int
    bos_id: int | None = None

    def __init__(self, renderer: Any, tokenizer: Any, max_positions: int, *, family: str, template: Any) -> None:
        self.renderer, self.tokenizer, self.max_positions, self.family = renderer, tokenizer, max_positions, family
        if isinstance(template, dict):  # several, by name
            template = template.get("default")
        if not template:
            raise CheckpointError(
                "The checkpoint's processor has no chat template.",
                fix=f"save the processor of the original {family} checkpoint beside the weights.",
            )
        self.template: str = template
        self._steering: frozenset[str] = frozenset()
        self.special_pattern = re.compile("(?!)")
        self._require_prompts()

    def encode(
        self, conversation: Conversation, *, max_new_tokens: int, kind: str = "text", with_null: bool = False
    ) -> Encoding:
        """Ids and images of a prompt that ends where an act of this kind begins; `with_null`: its unconditional ids.

        Raises ContextError when the prompt and `max_new_tokens` do not fit the model, DataError for a conversation that
        the template or the image processor rejects.
        """
        chat, texts, images = with_sentinels(conversation)
        pixels, sizes, image_ids = self._encode_images(images)
        ids = self._prompt_ids(self._render(chat, kind), texts, image_ids)
        if kind == "image":
            ids += self._image_prefix()
        fix = "shorten the prompt." if kind == "image" else "shorten the prompt or lower sampling.text.max_tokens."
        self._check_context_length(conversation, len(ids), max_new_tokens, fix)
        ids_T = torch.tensor(ids, dtype=torch.long)
        return Encoding(ids_T, pixels, self._null_ids(ids_T, kind) if with_null else None, sizes)

    def encode_all(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int,
        kind: str = "text",
        with_null: bool = False,
    ) -> list[Encoding]:
        """`encode` for each; a conversation that occurs again shares its encoding."""
        return encode_unique(
            conversations, lambda c: self.encode(c, max_new_tokens=max_new_tokens, kind=kind, with_null=with_null)
        )

    def _encode_images(self, images: list[Image.Image]) -> tuple[Tensor | None, Tensor | None, list[list[int]]]:
        """Pixels and sizes of a conversation's images, and for each the ids that stand for it in the prompt."""
        raise NotImplementedError

    def _render(self, chat: list[dict[str, Any]], kind: str) -> str:
        return self.rendered(chat)

    def _image_prefix(self) -> list[int]:
        """What a prompt for an image ends with."""
        return []

    def _null_ids(self, ids: Tensor, kind: str) -> Tensor | None:
        """The prompt of the unconditional branch; None for a family that has none."""
        return None

    def _prompt_ids(self, rendered: str, texts: Sequence[str], image_ids: Sequence[list[int]]) -> list[int]:
        ids = [] if self.bos_id is None else [self.bos_id]
        following = iter(image_ids)
        for number, piece in enumerate(self._pieces(rendered, self.image_token, len(image_ids))):
            if piece == self.image_token:
                ids += next(following)
            elif number % 2:  # a special token
                if piece != self.tokenizer.bos_token or len(ids) > 1:  # some templates begin with BOS themselves
                    ids.append(self.tokenizer.convert_tokens_to_ids(piece))
            elif piece:
                ids += self._tokenize_with_texts(piece, texts)
        return ids

    def text_ids(self, text: str) -> list[int]:
        """Ids of plain text: nothing in it is special."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def readable(self, ids: Sequence[int]) -> str:
        """A context's ids as text with the template's special tokens; an image token that is repeated is counted."""
        text = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        token = re.escape(self.image_token)
        return re.sub(f"(?:{token}){{2,}}", lambda run: f"{self.image_token} x {run[0].count(self.image_token)}", text)

    def special_tokens(self) -> set[str]:
        """Control tokens: never produced by tokenizing the text of a conversation.

        Flags decide, not names: `all_special_tokens` leaves out role markers such as <|User|>.
        """
        return {*self._steering} | {t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special}

    def rendered(self, chat: list[dict[str, Any]]) -> str:
        """The chat in the checkpoint's template, sentinels in the place of texts.

        Raises DataError if it rejects the conversation, CheckpointError if it leaves a text out or does not end.
        """
        try:
            with time_limit(RENDER_SECONDS):
                rendered = self.renderer.apply_chat_template(
                    chat, chat_template=self.template, add_generation_prompt=True, tokenize=False
                )
        except TimeoutError:
            raise CheckpointError(
                f"The checkpoint's chat template takes more than {RENDER_SECONDS:g} s for one conversation.",
                fix=f"use the chat template that belongs to this {self.family} checkpoint.",
            ) from None
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in chat)
            raise DataError(
                f"The checkpoint's chat template rejects a conversation of {roles}: {error}.",
                fix="use turns that it knows, usually user and assistant in alternation.",
            ) from error
        texts = [part["text"] for message in chat for part in message["content"] if part["type"] == "text"]
        marks = [match[0] for text in texts for match in SENTINEL.finditer(text)]
        missing = [mark for mark in marks if mark not in rendered]
        if missing:
            raise CheckpointError(
                f"The chat template leaves out {len(missing)} of {len(marks)} texts: the model would not see them.",
                fix=f"use the chat template that belongs to this {self.family} checkpoint.",
            )
        return rendered

    def _require_prompts(self) -> None:
        """Raise CheckpointError unless the template ends, and shows what a user says: else all prompts are one."""
        prompt = {"role": "user", "content": [{"type": "text", "text": "\ue0000\ue001"}]}
        try:
            self.rendered([prompt])
        except DataError as error:
            raise CheckpointError(
                f"The checkpoint's chat template rejects a user's prompt: {error.problem}",
                fix=f"use the chat template that belongs to this {self.family} checkpoint.",
            ) from error

    def _set_control_tokens(self, tokens: Collection[str]) -> None:
        """Name special tokens beyond those that the tokenizer flags, and learn to find all of them in a rendering."""
        self._steering = frozenset(tokens)
        longest_first = sorted(self.special_tokens(), key=len, reverse=True)
        self.special_pattern = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    def _id(self, role: str, token: str | None) -> int:
        found = None if token is None else self.tokenizer.convert_tokens_to_ids(token)
        if found is None or found == self.tokenizer.unk_token_id:
            raise CheckpointError(
                f"The tokenizer's {role} {token!r} is not in its vocabulary.",
                fix=f"use the tokenizer files that belong to this {self.family} checkpoint.",
            )
        return int(found)

    def _pieces(self, rendered: str, image_token: str, num_images: int) -> list[str]:
        """A rendering cut at its special tokens, which are the odd pieces. CheckpointError if it drops an image."""
        pieces = self.special_pattern.split(rendered)
        if pieces.count(image_token) != num_images:
            raise CheckpointError(
                f"The chat template shows {pieces.count(image_token)} of {num_images} images.",
                fix=f"use the chat template that belongs to this {self.family} checkpoint.",
            )
        return pieces

    def _tokenize_with_texts(self, piece: str, texts: Sequence[str]) -> list[int]:
        """Ids of a piece between special tokens, its texts put in."""
        return self.text_ids(SENTINEL.sub(lambda match: texts[int(match[1])], piece))

    def _check_context_length(self, conversation: Conversation, num_ids: int, max_new_tokens: int, fix: str) -> None:
        if num_ids + max_new_tokens - 1 > self.max_positions:  # the last token is not an input
            raise ContextError(
                f"The prompt has {num_ids} tokens and its act may add {max_new_tokens}, but the model holds "
                f"{self.max_positions}: {conversation.text[:60]!r}...",
                fix=fix,
            )


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in this thread once the block, which must run Python code, has taken too long."""
    thread, lock, done = threading.get_ident(), threading.Lock(), False

    def stop() -> None:
        with lock:
            if not done:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TimeoutError))

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            done = True
        timer.cancel()


def encode_unique(conversations: Sequence[Conversation], encode: Callable[[Conversation], T]) -> list[T]:
    """`encode` of each; a conversation that occurs again (the same object) shares its encoding."""
    known: dict[int, T] = {}
    for one in conversations:
        if id(one) not in known:
            known[id(one)] = encode(one)
    return [known[id(one)] for one in conversations]


def with_sentinels(conversation: Conversation) -> tuple[list[dict[str, Any]], list[str], list[Image.Image]]:
    """The chat with every text replaced by its sentinel, the texts, and the images in order.

    White space around a text stays outside, where the template can strip it.
    """
    texts: list[str] = []
    images: list[Image.Image] = []
    chat = []
    for message in conversation.messages:
        content: list[dict[str, str]] = []
        for part in message.parts:
            if isinstance(part, ImagePart):
                images.append(part.image)
                content.append({"type": "image"})
                continue
            core = part.text.strip()
            before, _, after = part.text.partition(core) if core else (part.text, "", "")
            content.append({"type": "text", "text": f"{before}\ue000{len(texts)}\ue001{after}" if core else before})
            texts.append(core)
        chat.append({"role": message.role, "content": content})
    return chat, texts, images
