"""A process that builds a model without its weights, and is sent them."""

import pytest
import torch
import torch.distributed as dist

from motet.config import LoraConfig, PolicyConfig
from motet.distributed.fully_sharded import FullySharded
from motet.distributed.processes import Processes
from motet.policies import load_policy
from motet.policies.shards import full_data
from tests.runs import save_tiny_janus

pytestmark = pytest.mark.usefixtures("process_group")


class Second(Processes):
    """The second of two processes; the main one has all weights."""

    rank, size = 1, 2

    def all_gather(self, value):
        return ["cpu" if value == "meta" else value, value]


def test_only_the_main_process_reads_weights_and_the_others_are_sent_them(tmp_path, monkeypatch):
    config = PolicyConfig(path=str(save_tiny_janus(tmp_path)), device="cpu", dtype="float32", rollout_dtype="float32")
    whole, parallel = load_policy(config.path, config), FullySharded(Second())
    policy = parallel.load_policy(config)
    assert all(parameter.is_meta for parameter in policy.model.parameters())
    modules = [module for part in whole.parts.values() for module in part.modules()]
    sent = iter([t for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None])
    monkeypatch.setattr(dist, "broadcast", lambda tensor, source: tensor.copy_(next(sent).detach()))
    parallel.prepare(policy)
    theirs = dict(whole.model.named_parameters()) | dict(whole.model.named_buffers())
    ours = dict(policy.model.named_parameters()) | dict(policy.model.named_buffers())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(full_data(tensor), theirs[name]) for name, tensor in ours.items())
    adapted = parallel.load_policy(config.model_copy(update={"lora": LoraConfig(rank=2)}))
    assert not any(parameter.is_meta for parameter in adapted.model.parameters())
