"""Requests of lmms-eval as motet's: the conversation, and how it is sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from motet.core.conversation import Conversation, from_chat
from motet.core.errors import ConfigError, DataError
from motet.core.sampling import Sampling

_USED = ("max_new_tokens", "temperature", "do_sample", "top_p", "top_k", "until")
_NEUTRAL: dict[str, tuple[Any, ...]] = {"num_beams": (1,), "repetition_penalty": (1,), "image_aspect_ratio": ("pad",)}
"""Further settings of tasks, and the values with which they change nothing here."""


def conversation_of(text: str, visuals: Sequence[Any] | None) -> Conversation:
    """One user turn. Images take the places of `<image>` in the text, or come first where it has none.

    Raises DataError for visuals other than images: motet's policies see neither video nor audio.
    """
    images = [_image(visual) for one in visuals or () for visual in (one if isinstance(one, list | tuple) else [one])]
    if text.count("<image>") not in (0, len(images)):
        text = text.replace("<image>", "")  # the task numbers its images itself, or repeats one
    return from_chat([{"role": "user", "content": text}], images)


def _image(visual: Any) -> Image.Image:
    if not isinstance(visual, Image.Image):
        raise DataError(
            f"The task shows a {type(visual).__name__} ({visual!r:.60}); motet's policies see images only.",
            fix="choose a task of text and images.",
        )
    return visual


def sampling_of(task: str, settings: Mapping[str, Any], most: int) -> Sampling:
    """The sampling of a task's `generation_kwargs`: greedy unless it asks for sampling, and at most `most` tokens.

    Raises ConfigError, naming the task, for settings that have no equal here.
    """
    for name, value in settings.items():
        if name not in _USED and value is not None and value not in _NEUTRAL.get(name, ()):
            raise ConfigError(
                f"The task {task!r} sets {name}={value!r}, which motet does not support.",
                fix=f"override it: --gen_kwargs {name}=1, or choose another task.",
            )
    temperature = float(settings.get("temperature") or 0.0)
    if settings.get("do_sample") is False:
        temperature = 0.0
    asked = int(settings.get("max_new_tokens") or most)
    sampling = Sampling(temperature=temperature, max_tokens=min(asked, most))
    if not temperature:
        return sampling
    return replace(sampling, top_p=settings.get("top_p") or None, top_k=settings.get("top_k") or None)


def stops_of(settings: Mapping[str, Any]) -> list[str]:
    """The stop strings of a task's `generation_kwargs`."""
    until = settings.get("until") or []
    return [stop for stop in ([until] if isinstance(until, str) else until) if stop]
