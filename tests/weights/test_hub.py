"""A name that is neither a path here nor on the hub is refused at once: the libraries would retry for 25 seconds."""

import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from motet.config import DataConfig, ExpertConfig, PolicyConfig
from motet.core.errors import CheckpointError, ConfigError, DataError
from motet.data import open_rows
from motet.policies import load_policy
from motet.rewards.models import load_processor
from motet.weights import hub
from motet.weights.hub import near_path, why_missing
from tests.runs import motet_command


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A current folder with a run and a checkpoint."""
    for name in ("runs/mine", "checkpoints/shapes_janus"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """A hub without a single repository, and what it was asked."""
    names = []
    monkeypatch.setattr(hub, "_ask_hub", lambda source, kind: names.append(source) or "no such repository")
    return names


@pytest.mark.parametrize(
    ("source", "near"),
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
def test_near_paths(folders, source, near):
    assert near_path(Path(source)) == near
    assert near_path(folders / source) == (near and str(folders / near))


def test_what_looks_like_a_path_is_not_asked_for(folders, asked):
    for source in ("runs/mien", "./a/b", "/a/b", "~/a", "a/b/c", "runs/mine/", "nothing", "a\0b", "a/b c", "a/" * 300):
        why = why_missing(source, "checkpoint")
        assert why is None if source == "runs/mine/" else why.startswith(f"There is no checkpoint at {source!r}.")
    assert why_missing("runs/mien", "checkpoint").endswith(" Did you mean 'runs/mine'?")
    assert asked == []


def test_what_may_be_an_id_is_asked_for_once(folders, asked, monkeypatch):
    why = why_missing("checkpionts/shapes_janus", "checkpoint")
    assert why == (
        "'checkpionts/shapes_janus' is not a folder here, and the hub does not have it: no such repository."
        " Did you mean 'checkpoints/shapes_janus'?"
    )
    assert why_missing("runs/other", "checkpoint") is not None  # nothing here is spelt like it
    assert asked == ["checkpionts/shapes_janus", "runs/other"]
    monkeypatch.setattr(hub, "_ask_hub", lambda source, kind: None)
    assert why_missing("someone/something", "checkpoint") is None


def test_what_the_cache_holds_is_not_asked_for(folders, asked, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folders / "cache"))
    (folders / "cache" / "models--runs--mien" / "snapshots").mkdir(parents=True)
    assert why_missing("runs/mien", "checkpoint") is None and asked == []
    assert why_missing("runs/mien", "data", "dataset") is not None


def test_an_unreachable_hub_is_asked_without_retries(monkeypatch):
    """By transformers' own means the answer takes 25 seconds."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    start = time.monotonic()
    assert "the hub does not have it: " in why_missing("nobody/nothing", "checkpoint")
    assert time.monotonic() - start < 10


def test_every_loader_refuses_at_once(folders, asked, capsys):
    with pytest.raises(CheckpointError, match=r"no checkpoint at 'runs/mien'. Did you mean 'runs/mine'"):
        load_policy("runs/mien")
    expert = PolicyConfig(path="x", device="cpu", expert=ExpertConfig(path="runs/mien"))
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
    assert asked == []
