"""A name that is neither a local path nor on the Hub is rejected at once; the libraries would retry for 25 seconds."""

import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from motet.config import DataConfig, DiffusionConfig, PolicyConfig
from motet.core.errors import CheckpointError, ConfigError, DataError
from motet.data import open_rows
from motet.policies import load_policy
from motet.rewards.models import load_processor
from motet.weights import hub
from motet.weights.hub import closest_path, missing_reason
from tests.runs import motet_command


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The current folder, with a run and a checkpoint."""
    for name in ("runs/mine", "checkpoints/shapes_janus"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def requests(monkeypatch):
    """The names requested from a Hub without repositories."""
    names = []
    monkeypatch.setattr(hub, "_ask_hub", lambda source, kind: names.append(source) or "no such repository")
    return names


@pytest.mark.parametrize(
    ("source", "closest"),
    [
        ("runs/mien", "runs/mine"),
        ("run/mine", "runs/mine"),
        ("./checkpoints/shape_janus", "checkpoints/shapes_janus"),
        ("checkpoints/shapes_janus/step/one", None),
        ("nothing", None),
        ("runs/" + 300 * "x", None),
        ("a\0b", None),
    ],
)
def test_closest_paths(folders, source, closest):
    assert closest_path(Path(source)) == closest
    assert closest_path(folders / source) == (closest and str(folders / closest))


def test_paths_are_not_looked_up_on_the_hub(folders, requests):
    for source in ("runs/mien", "./a/b", "/a/b", "~/a", "a/b/c", "runs/mine/", "nothing", "a\0b", "a/b c", "a/" * 300):
        why = missing_reason(source, "checkpoint")
        assert why is None if source == "runs/mine/" else why.startswith(f"There is no checkpoint at {source!r}.")
    assert missing_reason("runs/mien", "checkpoint").endswith(" Did you mean 'runs/mine'?")
    assert requests == []


def test_possible_ids_are_looked_up_once(folders, requests, monkeypatch):
    why = missing_reason("checkpionts/shapes_janus", "checkpoint")
    assert "on the Hub: no such repository. Did you mean 'checkpoints/shapes_janus'?" in why
    assert missing_reason("runs/other", "checkpoint") is not None  # no similar local path
    assert requests == ["checkpionts/shapes_janus", "runs/other"]
    monkeypatch.setattr(hub, "_ask_hub", lambda source, kind: None)
    assert missing_reason("someone/something", "checkpoint") is None


def test_cached_ids_are_not_looked_up(folders, requests, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folders / "cache"))
    (folders / "cache" / "models--runs--mien" / "snapshots").mkdir(parents=True)
    assert missing_reason("runs/mien", "checkpoint") is None and requests == []
    assert missing_reason("runs/mien", "data", "dataset") is not None


def test_an_unreachable_hub_is_not_retried(monkeypatch):
    """transformers itself takes 25 seconds."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    start = time.monotonic()
    assert "could not be found on the Hub: " in missing_reason("nobody/nothing", "checkpoint")
    assert time.monotonic() - start < 10


def test_every_loader_rejects_a_missing_path_at_once(folders, requests, capsys):
    with pytest.raises(CheckpointError, match=r"no checkpoint at 'runs/mien'. Did you mean 'runs/mine'"):
        load_policy("runs/mien")
    expert = PolicyConfig(path="x", device="cpu", diffusion=DiffusionConfig(path="runs/mien"))
    from motet.policies.loading import LoadSpec, _pipeline_at

    with pytest.raises(CheckpointError, match=r"no checkpoint at 'runs/mien'"):
        _pipeline_at("runs/mien", LoadSpec.at("x", expert))
    with pytest.raises(ConfigError, match=r"rewards.options.path: There is no file at 'runs/mien'"):
        load_processor(AutoTokenizer, "runs/mien", key="rewards.options.path")
    with pytest.raises(DataError, match=r"data.source='runs/mien': There is no data at 'runs/mien'"):
        open_rows(DataConfig(source="runs/mien"))
    for command in (["sample", "runs/mien", "x"], ["eval", "runs/mien"], ["bench", "rollout", "runs/mien"]):
        answer = motet_command(capsys, *command)
        assert answer.code == 2 and "Did you mean 'runs/mine'?" in answer.err, answer.err
    assert requests == []
