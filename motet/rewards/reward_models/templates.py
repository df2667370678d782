"""The published prompts of reward models, which users write to text files: they are other projects' texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from motet.core.errors import DataError
from motet.rewards.options import check_non_empty, raise_option_error

PROMPT = "{text_prompt}"
"""Where a template has the row's prompt or instruction."""
REWARD_TOKEN = "<|Reward|>"
"""The token whose state HPS v3 and EditReward score."""
SPECIAL = re.compile(r"<\|\w+\|>")


def read_template(reward: str, option: str, path: Any, places: Sequence[str] = (PROMPT, REWARD_TOKEN)) -> str:
    """The published prompt in a text file. Raises ConfigError unless it contains each of `places` once."""
    check_non_empty(reward, option, path, "file with the published prompt")
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise_option_error(
            reward,
            option,
            path,
            f"cannot be read: {type(error).__name__}",
            fix="write the published prompt to a text file; docs/how-to/reward-models.md says how.",
        )
    if any(text.count(place) != 1 for place in places):
        raise_option_error(
            reward,
            option,
            path,
            f"must contain {' and '.join(places)} once",
            fix="write the published prompt to it, as docs/how-to/reward-models.md says.",
        )
    return text


def fill_template(template: str, prompt: str) -> str:
    """The template with the prompt in it."""
    return template.replace(PROMPT, prompt)


def check_prompt(reward: str, column: str, prompt: str) -> None:
    """Raise DataError for a prompt with a special token, which would be read as one."""
    found = SPECIAL.search(prompt)
    if found is not None:
        raise DataError(
            f"The column {column!r} contains {found[0]!r}, a special token of the model of {reward!r}.",
            fix="remove it from the data.",
        )
