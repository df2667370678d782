"""Which prompts and scenes of the shapes worlds are for validation."""

from __future__ import annotations

import zlib

TEST_DIVISOR = 5
"""One in five prompts and scenes is in the test split."""


def in_test_split(key: str) -> bool:
    """Whether the item with this text is in the test split."""
    return zlib.crc32(key.encode()) % TEST_DIVISOR == 0
