"""Tiny checkpoints of the classes of the published reward models."""

import pytest

from tests.rewards.judges import save_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    """A tiny CLIP in a folder of its own."""
    return str(save_clip(tmp_path_factory.mktemp("clip")))
