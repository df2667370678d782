"""Replicas: every process holds all weights, and before every optimizer step the gradients are added up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from motet.core.errors import ConfigError
from motet.core.protocols import TrainablePolicy
from motet.distributed.parallel import Parallel

BUCKET_BYTES = 64 * 2**20
"""Gradients are copied into flat buckets of this size: one collective for many small parameters."""


class Replicas(Parallel):
    """The weights stay equal because every process takes the same optimizer step with the same gradient."""

    name = "replicas"

    def prepare(self, policy: TrainablePolicy) -> None:
        """Raise ConfigError unless the weights that train are those of the other processes."""
        sums = [float(parameter.detach().double().sum()) for parameter in policy.trainable().values()]
        for rank, others in enumerate(self.processes.all_gather(sums)):
            if others != sums:
                raise ConfigError(
                    f"The weights that train differ between processes {self.processes.rank} and {rank}.",
                    fix="give all machines the same files at policy.path, and the same version of torch.",
                )

    def reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """The sum, not the mean: losses are sums over actions that are divided by the counts of all processes.

        A parameter that no process touched keeps no gradient: AdamW leaves it alone, as in one process.
        """
        touched = self.processes.all_gather([parameter.grad is not None for parameter in parameters])
        summed: list[Tensor] = []
        for parameter, *flags in zip(parameters, *touched, strict=True):
            if any(flags):
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                summed.append(parameter.grad)
        for bucket in _buckets(summed):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            self.processes.all_reduce_([flat])
            for gradient, part in zip(bucket, flat.split([one.numel() for one in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one type and device, in their order, up to the bucket's size."""
    by_type: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for gradient in gradients:
        by_type.setdefault((gradient.dtype, gradient.device), []).append(gradient)
    for members in by_type.values():
        bucket: list[Tensor] = []
        size = 0
        for gradient in members:
            if bucket and size + gradient.nbytes > BUCKET_BYTES:
                yield bucket
                bucket, size = [], 0
            bucket.append(gradient)
            size += gradient.nbytes
        if bucket:
            yield bucket
