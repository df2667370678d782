"""One rank of many that do not exist: a Janus of a published size on fake tensors, sharded over a fake process group.

    python tests/estimation/fake_ranks.py RANKS

Prints JSON: bytes of what rank 0 holds, and the peak of a replay and its backward pass by what holds it, as
torch's FSDPMemTracker counts it. The fake store and the tracker are not public: a torch without them exits with 77.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import torch.distributed as dist

from motet.convert.janus_config import published_config
from motet.distributed.root_module import RootModule
from motet.estimation.building import language_parts
from motet.policies.trainable import enable_gradient_checkpointing

ROWS, LENGTH, ACTIONS = 8, 1152, 40
"""Sequences of a micro-batch, their tokens, and the actions of each that the head scores."""


def main(ranks: int) -> dict[str, Any]:
    try:
        from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
        from torch.testing._internal.distributed.fake_pg import FakeStore
    except ImportError:
        sys.exit(77)
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from transformers import JanusForConditionalGeneration

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    mesh = init_device_mesh("cpu", (ranks,))
    with FakeTensorMode():
        model: Any = JanusForConditionalGeneration(published_config("Janus-Pro-1B")).eval()
        parts = language_parts(model)
        for name, part in parts.items():
            part.requires_grad_(name in ("language_model", "lm_head"))
        language, head = parts["language_model"], parts["lm_head"]
        root = RootModule([language, head], list(language.layers))
        enable_gradient_checkpointing(language)
        for module in (*language.layers, root):
            fully_shard(module, mesh=mesh)
        adamw = torch.optim.AdamW(root.parameters())
        tracker = FSDPMemTracker(root, adamw)

        def forward() -> torch.Tensor:
            embedded = language.embed_tokens(torch.zeros(ROWS, LENGTH, dtype=torch.long))
            hidden = language(inputs_embeds=embedded, use_cache=False).last_hidden_state
            return head(hidden[:, -ACTIONS:]).float().logsumexp(dim=-1)

        with tracker:  # without the optimizer's step, in which it counts a DTensor as if it were whole
            with torch.autocast("cpu", torch.bfloat16):
                loss = root(forward).sum()
            loss.backward()
        adamw.step()
        moments = [t for state in adamw.state.values() for name, t in state.items() if name != "step"]
        sharded = {id(p) for p in root.parameters()}
        peak = next(iter(tracker.get_tracker_snapshot("peak").values()))
        return {
            "trainable weights": sum(p.to_local().nbytes for p in root.parameters()),
            "frozen parameters": sum(p.numel() for p in model.parameters() if id(p) not in sharded),
            "gradients": sum(p.grad.to_local().nbytes for p in root.parameters()),
            "AdamW moments": sum(t.to_local().nbytes for t in moments),
            "peak": {str(kind).split(".")[-1]: size for kind, size in peak.items()},
        }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
