"""A disk that fills up during a save, at any file and at any byte: the checkpoint before it stays, and one is told."""

import errno
import os
import resource
from contextlib import contextmanager
from itertools import count

import pytest

from motet.config import parse_recipe
from motet.core.errors import CheckpointError
from motet.training.checkpoint import Progress, save_checkpoint
from motet.training.setup import setup_rl
from motet.weights.locate import checkpoints, find_damage
from motet.weights.safetensors_io import is_write_error
from tests.runs import mapping


@pytest.fixture(scope="module")
def session(tiny_checkpoint):
    return setup_rl(parse_recipe(mapping(tiny_checkpoint)))


@pytest.fixture
def save(session, tmp_path):
    """`save(step)` writes a checkpoint; one of step 1 is there."""

    def save(step):
        progress = Progress(step, 0.0, session.data_state(), random_states=[{"python": [1]}])
        save_checkpoint(tmp_path / "run" / "checkpoints", session.policy, session.optimizer, progress, keep=1)

    save(1)
    return save


def assert_whole(folder, *names):
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert [find_damage(path) for path in checkpoints(folder)] == [None] * len(names)


def test_a_disk_that_is_full_at_any_file_of_a_checkpoint(save, tmp_path, monkeypatch):
    """The system may tell only when a file is synced that there is no space for it."""
    folder, fsync = tmp_path / "run" / "checkpoints", os.fsync
    for files in count():
        calls = []

        def sync(descriptor, calls=calls, files=files):
            calls.append(descriptor)
            if len(calls) == files + 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            fsync(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", sync)
            if len(checkpoints(folder)) == 2 or files > 30:
                break
            with pytest.raises(
                CheckpointError, match=r"step_000002' cannot be written: No space left on device"
            ) as told:
                save(2)
        assert told.value.fix == "free some disk space there."
        if (folder / "step_000002").exists():  # it was whole, and the folder that names it could not be synced
            break
        assert_whole(folder, "step_000001")
    assert files > 8  # files and folders of a checkpoint
    save(2)
    assert_whole(folder, "step_000002")


@contextmanager
def largest_file(size):
    """No file can get larger, whoever writes it: as on a full disk, a part of it is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_at_any_byte(save, tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    sizes = sorted(path.stat().st_size for path in (folder / "step_000001").rglob("*") if path.is_file())
    for size in {0, sizes[0] - 1, *(size // 2 for size in sizes[1:]), sizes[-1] - 1}:
        with largest_file(size), pytest.raises(CheckpointError, match=r"cannot be written: .*File too large"):
            save(2)
        assert_whole(folder, "step_000001")
    save(2)
    assert_whole(folder, "step_000002")


def test_errors_of_tokenizers_are_errors_of_writing(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    tokenizer = Tokenizer(BPE(vocab={f"a{n}": n for n in range(100)}, merges=[]))
    with largest_file(100), pytest.raises(Exception, match="os error") as error:
        tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert is_write_error(error.value) and not is_write_error(RuntimeError("out of memory"))
    assert not is_write_error(CheckpointError("it cannot be written: full (os error 28).", fix="free some space."))
