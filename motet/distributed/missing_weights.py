"""The weights of a model that one process has read, sent to those that built it without them (on the meta device)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from motet.distributed.processes import Processes
from motet.policies.shards import local_data


class MissingWeights:
    """All parameters and buffers, if a process lacks any. Made before the model is sharded, sent afterwards.

    Only the main process holds whole weights, until they are sent; the others hold one tensor at a time.
    """

    def __init__(self, processes: Processes, parts: Iterable[nn.Module]) -> None:
        self.processes = processes
        modules = dict.fromkeys(module for part in parts for module in part.modules())
        places = [(module, name) for module in modules for name in [*module._parameters, *module._buffers]]
        places = [(module, name) for module, name in places if isinstance(getattr(module, name), Tensor)]
        lacking = processes.any(any(getattr(module, name).is_meta for module, name in places))
        self.places = places if lacking else []
        self.sources = [getattr(module, name).detach() for module, name in self.places] if processes.is_main else []

    def send(self, root: nn.Module, device: str) -> None:
        """Fill what is on the meta device. `root` holds what is sharded; what is not is whole in every process."""
        if not self.places:
            return
        if any(parameter.is_meta for parameter in root.parameters()):
            root.to_empty(device=device)  # all at once, as FSDP2 asks
        for number, (module, name) in enumerate(self.places):
            present: Tensor = getattr(module, name)
            if self.processes.is_main:
                whole = self.sources[number].to(device).contiguous()
                dist.broadcast(whole, 0)
                continue
            if present.is_meta:
                _replace(module, name, torch.empty_like(present, device=device))
                present = getattr(module, name)
            whole = torch.empty(present.shape, dtype=present.dtype, device=device)
            dist.broadcast(whole, 0)
            if isinstance(present, DTensor):
                own = distribute_tensor(whole, present.device_mesh, present.placements, src_data_rank=None)
                local_data(present).copy_(own.to_local())
            else:
                present.data.copy_(whole)
        self.sources = []


def _replace(module: nn.Module, name: str, tensor: Tensor) -> None:
    if name in module._parameters:
        tensor = nn.Parameter(tensor, requires_grad=getattr(module, name).requires_grad)
    setattr(module, name, tensor)
