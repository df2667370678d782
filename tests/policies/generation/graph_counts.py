"""How many graphs dynamo makes of the decode step: `python -m tests.policies.generation.graph_counts FOLDER KIND`."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch._dynamo.utils import counters

from motet.config import PolicyConfig
from motet.core.conversation import user
from motet.core.protocols import Request
from motet.core.trajectory import Sampling
from motet.policies import load_policy
from motet.policies.generation.static_sampler import StaticSampler
from motet.policies.generation.static_step import decode_step
from motet.policies.janus import JanusPolicy


def main(folder: str, kind: str) -> dict[str, Any]:
    """For a bucket that is never left and for small ones, each twice: before and after an update of the weights."""
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    step = torch.compile(decode_step, backend=backend, fullgraph=True, dynamic=False)
    policy = load_policy(folder, PolicyConfig(path=folder, device="cpu"))
    assert isinstance(policy, JanusPolicy)
    guided = {"guidance": "guided", "guidance_scale": 3.0} if kind == "image" else {}
    contexts = [user("two red circles"), user("a blue star left of a green square")]
    asked = [
        Request(kind, kind, context, (0, i, g)) for i, context in enumerate(contexts) for g in range(4)
    ]  # two full batches of images
    found: dict[str, Any] = {"same tokens": True, "graphs": [], "buckets": [], "steps": 0}
    for bucket in (64, 8 if kind == "image" else 16):  # images are short
        before, widths = len(graphs), set()
        for _ in range(2):
            policy.static_cache, policy.rollout_batch = False, None
            theirs = policy.act(asked, Sampling(max_tokens=27, **guided))
            sampler = StaticSampler(policy._fused_model(), step=step, bucket=bucket)
            policy.static_cache, policy.rollout_batch, policy._sampler = True, 4, (policy.version, sampler)
            ours = policy.act(asked, Sampling(max_tokens=27, **guided))
            pairs = zip(ours, theirs, strict=True)
            found["same tokens"] &= all(a.ids.equal(b.ids) for a, b in pairs)  # type: ignore[attr-defined]
            calls = sampler.engines[kind][1].graphs.calls
            widths |= calls.keys()
            found["steps"] += sum(calls.values())
            with torch.no_grad():  # new weights, a new sampler, the same graphs
                for weight in policy.trainable().values():
                    weight.mul_(1.001)
            policy.version += 1
        found["graphs"].append(len(graphs) - before)
        found["buckets"].append(len(widths))
    breaks, unique = sum(counters["graph_break"].values()), counters["stats"]["unique_graphs"]
    return {**found, "graph_breaks": breaks, "unique_graphs": unique}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
