"""Fixtures of the planted faults."""

from pathlib import Path

import pytest

from tests.preflight.planting import World


@pytest.fixture(scope="module")
def shared_sessions() -> dict:
    """Runs that the tests of a file share."""
    return {}


@pytest.fixture
def world(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_sessions: dict) -> World:
    """Small runs to plant faults in."""
    return World(tiny_checkpoint, tmp_path, monkeypatch, shared_sessions)
