"""The text of an act as clients see it: cut at stop strings, and piece by piece while it is generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from motet.core.protocols import Policy
from motet.core.trajectory import TextAct
from motet.policies.composite import CompositePolicy
from motet.policies.generation.policy import LanguageModelPolicy


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before its first stop string, and whether there is one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def finished_text(act: TextAct, stops: Sequence[str]) -> tuple[str, str]:
    """An act's text for clients, and OpenAI's reason why it ends: `stop` or `length`."""
    text, stopped = cut(act.text, stops)
    return text, "stop" if stopped or act.finished else "length"


def text_decoder(policy: Policy) -> Callable[[Tensor], str] | None:
    """From the tokens of an unfinished text to the text; None for a policy that does not show its tokenizer."""
    member = policy.text_policy if isinstance(policy, CompositePolicy) else policy
    if not isinstance(member, LanguageModelPolicy):
        return None
    tokenizer = member.encoder.tokenizer
    return lambda ids: tokenizer.decode(ids.cpu(), skip_special_tokens=False)


class TextPieces:
    """What of a growing text has not been sent yet. The end of a text is withheld while it may belong to a stop string
    or to a character that has more bytes."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops, self.sent = stops, ""

    def take(self, text: str) -> str:
        """The next piece of an unfinished text; empty where there is none."""
        seen, stopped = cut(text, self.stops)
        if not stopped:
            seen = seen.rstrip("\ufffd")
            withheld = max((_overlap(seen, stop) for stop in self.stops), default=0)
            seen = seen[: len(seen) - withheld]
        return self._new(seen)

    def rest(self, text: str) -> str:
        """The last piece, of the text as `finished_text` returns it."""
        return self._new(text)

    def _new(self, text: str) -> str:
        if not text.startswith(self.sent):  # a tokenizer that changes what it has already decoded
            return ""
        piece = text[len(self.sent) :]
        self.sent += piece
        return piece


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that begins the stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
