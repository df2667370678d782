"""Checkpoints of sharded weights: read by a run without sharding, and the other way round."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from motet.core.errors import CheckpointError, ConfigError
from motet.distributed import sharded_files
from motet.distributed.fully_sharded import FullySharded
from motet.distributed.parallel import Parallel
from motet.policies import load_policy
from motet.policies.shards import full_data
from motet.policies.trainable import mix_into_reference
from motet.training.checkpoint import Progress, restore, save_checkpoint
from motet.training.learner_state import learner_tensors
from motet.weights.locate import LEARNER, LEARNER_SHARDS, weights_digest
from tests.distributed.mixed_run import mixed_policy, train
from tests.runs import save_tiny_janus

pytestmark = pytest.mark.usefixtures("process_group")
PROGRESS = Progress(2, 1.5, {"": {"epoch": 0}})


@pytest.fixture(scope="module")
def janus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_janus(tmp_path_factory.mktemp("janus"))


def digest(policy, optimizer) -> str:
    """Of weights, moments and a reference that has moved."""
    whole = {name: full_data(tensor).numpy().tobytes() for name, tensor in learner_tensors(policy, optimizer).items()}
    return hashlib.sha256(
        json.dumps(sorted(whole)).encode() + b"".join(whole[name] for name in sorted(whole))
    ).hexdigest()


def trained(janus, parallel, steps=1):
    policy = mixed_policy(janus)
    optimizer, _ = train(policy, parallel, steps)
    mix_into_reference(policy, 0.5)
    optimizer.reference_moved = True
    return policy, optimizer


@pytest.mark.parametrize(("saving", "loading"), [(FullySharded, Parallel), (Parallel, FullySharded)])
def test_a_checkpoint_is_read_with_and_without_sharding(janus, tmp_path, saving, loading):
    parallel, reader = saving(), loading()
    policy, optimizer = trained(janus, parallel)
    step = save_checkpoint(tmp_path, policy, optimizer, PROGRESS, 1, parallel)
    assert (step / LEARNER_SHARDS).is_dir() == (saving is FullySharded) == (not (step / LEARNER).exists())
    assert not [file for file in step.rglob("*") if file.name.startswith(".metadata")]  # torch's would be a pickle
    other, its = trained(janus, reader, steps=0)
    assert digest(other, its) != digest(policy, optimizer)
    assert restore(step, other, its, reader) == PROGRESS
    assert digest(other, its) == digest(policy, optimizer) and its.num_steps == optimizer.num_steps == 1
    assert weights_digest(step) is not None


def test_the_folder_is_one_that_opens_without_sharding(janus, tmp_path):
    parallel = FullySharded()
    policy, optimizer = trained(janus, parallel)
    step = save_checkpoint(tmp_path / "sharded", policy, optimizer, PROGRESS, 1, parallel)
    whole = mixed_policy(janus)
    for name, parameter in whole.trainable().items():
        parameter.data = full_data(policy.trainable()[name])
    whole.save(tmp_path / "whole")
    for file in (tmp_path / "whole").rglob("*.safetensors"):
        saved = load_file(step / file.relative_to(tmp_path / "whole"))
        expected = load_file(file)
        assert saved.keys() == expected.keys() and all(torch.equal(saved[k], v) for k, v in expected.items())
    assert load_policy(step).kinds == policy.kinds
    assert all(hasattr(parameter, "full_tensor") for parameter in policy.trainable().values())  # sharded again


def test_other_parts_and_damaged_shards_are_rejected(janus, tmp_path):
    parallel = FullySharded()
    policy, optimizer = trained(janus, parallel)
    step = save_checkpoint(tmp_path, policy, optimizer, PROGRESS, 1, parallel)
    other = mixed_policy(janus, ["lm_head"])
    its, _ = train(other, Parallel(), 0)
    with pytest.raises(CheckpointError, match="other trained parts"):
        restore(step, other, its)
    (step / "SHA256SUMS").unlink()
    (shard,) = (step / LEARNER_SHARDS).glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="cannot be resumed"):
        restore(step, mixed_policy(janus), optimizer)


def test_an_old_torch_is_rejected(janus, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.8.1+cu128")
    with pytest.raises(ConfigError, match=r"needs torch 2\.9"):
        FullySharded().prepare(mixed_policy(janus))


def test_shards_are_put_together_by_where_they_lie(tmp_path):
    """Files of two processes, read by one."""
    for rank, rows in enumerate((slice(0, 3), slice(3, 5))):
        part = torch.arange(10.0).view(5, 2)[rows].clone()
        offsets = json.dumps({"w": {"saved_offsets": [rows.start, 0]}})
        save_file({"w": part}, tmp_path / f"{rank}.safetensors", {"format": "pt", "DCP_SHARDING_INFO": offsets})
    assert sharded_files.sizes_in(tmp_path) == {"w": torch.Size([5, 2])}
    whole = {"w": torch.zeros(5, 2)}
    sharded_files.load_sharded(tmp_path, whole)
    assert torch.equal(whole["w"], torch.arange(10.0).view(5, 2))
