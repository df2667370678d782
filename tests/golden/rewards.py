"""Rewards of the golden runs that differ among all samples of a group, so that every step has a gradient."""

from typing import Any


def letters(completions: list[Any], **columns: Any) -> list[float]:
    """The share of letters in all texts of a completion."""
    texts = ["".join(part["text"] for part in parts(one, "text")) for one in completions]
    return [sum(mark.isalpha() for mark in text) / (len(text) + 1) for text in texts]


def redness(completions: list[Any], **columns: Any) -> list[float]:
    """The mean of the red channel of the last image, in [0, 1]."""
    images = [parts(one, "image")[-1]["image"] for one in completions]
    return [image.convert("RGB").resize((1, 1)).getpixel((0, 0))[0] / 255 for image in images]


def parts(completion: list[Any], kind: str) -> list[dict[str, Any]]:
    """The parts of one type in all messages of a completion."""
    contents = [message["content"] for message in completion]
    blocks = [[{"type": "text", "text": one}] if isinstance(one, str) else one for one in contents]
    return [part for content in blocks for part in content if part["type"] == kind]
