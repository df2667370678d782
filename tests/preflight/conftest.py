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
    """Small runs to plant faults in. However busy the machine is, the check reads all rows that it samples."""
    monkeypatch.setattr("motet.preflight.probe.ROW_SECONDS", 600.0)
    return World(tiny_checkpoint, tmp_path, monkeypatch, shared_sessions)
