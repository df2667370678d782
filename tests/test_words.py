"""Plain English: words that motet's code, messages, docs and recipes do not use, each with the word to use instead."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHECKED = ("motet/", "recipes/", "docs/", "README.md")
SUFFIXES = {".py", ".md", ".yaml"}

WORDS = {
    r"[Pp]ictures?": "image",
    r"[Dd]rawings?|[Pp]ainters?|[Pp]ainted": "image, to generate an image",
    r"[Ss]iblings?": "generation (of a group)",
    r"duets?|glimpses?|specimens?": "rollout, sample",
    r"[Aa]new": "again, from scratch",
    r"mend(?:s|ed|ing)?": "fix",
    r"[Rr]efus(?:es?|ed|ing|als?)": "reject, raise",
    r"[Pp]ractis(?:e|es|ed|ing)": "train on",
    r"transcribe[sd]?|demonstrat(?:e|es|ed|ing)": "encode targets, teacher forcing",
    r"held[- ]back|held_back": "validation",
    r"timid|young|kindly|learnt|begun|torn": "small, incomplete, started, received gradient",
    r"law [1-6]|laws": "invariant",
    r"pilots?": "sweep",
    r"knows no|speaks? for|credited with": "does not support, is assigned to",
    r"(?<!there )(?<!There )is (?:no|none) (?!longer)\w+": "is not a ...",
}
PATTERN = re.compile("|".join(f"(?P<w{n}>\\b(?:{word})\\b)" for n, word in enumerate(WORDS)))

EXCEPTIONS = {
    # prompts for models, and the words that people use in prompts, captions and answers
    "motet/scenarios/builtin.py": r"[a-z ]*picture.*",
    "motet/shapes/prompts.py": r"a picture of|a drawing of",
    "motet/shapes/questions.py": r"what is in the picture",
    "motet/rewards/captions/lexicon.py": r"pictures?|drawing|young",
    "motet/rewards/judge/cycle.py": r"Describe the picture",
    "motet/rewards/judge/llm_judge.py": r"A picture was drawn|how good a picture",
    "motet/rewards/text/choice_parsing.py": r"\|picture\|",
    "recipes/promptrl_klein_edit.yaml": r"The second picture|how good a picture",
    "recipes/shapes_reward_audit.yaml": r"what is in the picture",
    "recipes/shapes_rewards.yaml": r"what is in the picture",
    "motet/serving/openai_replies.py": r"refusal",  # a field of OpenAI's replies
    # names of former versions, and of a paper
    "motet/config/renamed.py": r"duet|pilot|drawing|picture\w*",
    "motet/rewards/image/clip.py": r"pilot study",
    "docs/how-to/rewards-of-corl.md": r"pilot study",
    "docs/lab_notes.md": r"pilot (?:study|experiment)",
}
"""Phrases that a file may contain."""


def violations(name: str, text: str) -> Iterator[str]:
    """The lines of a file that use one of the words, with what to use instead."""
    allowed = EXCEPTIONS.get(name)
    for number, line in enumerate(text.splitlines(), 1):
        line = re.sub(allowed, "", line) if allowed else line
        for match in PATTERN.finditer(line):
            instead = list(WORDS.values())[int((match.lastgroup or "w0")[1:])]
            yield f"{name}:{number} {match[0]!r}: use {instead}"


def test_plain_words() -> None:
    command = ["git", "ls-files", "-z", *CHECKED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    names = [name for name in done.stdout.split("\0") if Path(name).suffix in SUFFIXES and (ROOT / name).is_file()]
    assert names
    assert [line for name in names for line in violations(name, (ROOT / name).read_text(encoding="utf-8"))] == []
