"""A GPU on paper: tensors that compute on the CPU, reject what a GPU rejects, and count what slows a GPU down.

    with paper_gpu() as gpu:
        gpu.move(policy.model)
        acts = policy.act(requests, sampling)
    print(gpu.summary())

Two things make a program slow on a GPU that no test on a CPU sees: kernels launched one by one, and *syncs*, where the
host waits for the device, which then waits for the host. Both are counted here, with the file and line that
caused each. Tensors of the two devices cannot be mixed.

The tensors are on the device `meta`: the only one besides the CPU that every build of torch accepts without registering
a backend, which a process cannot undo. So nothing outside the context changes. What depends on a real GPU is missing:
`torch.autocast`, CUDA graphs, fused kernels (attention counts as the products that it is made of), and time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn

from motet.testing.paper_tensor import DEVICE, DispatchMode, FunctionMode, PaperTensor
from motet.testing.places import calling_line


class Event(NamedTuple):
    """What happened, and the file and line that caused it."""

    what: str
    where: str


class PaperGPU:
    """What was counted since `clear`; all counters are by the file and line in motet, or in your own code.

    `launches` are operations that compute something (views and allocations do not). `syncs` are waits for the device:
    `item` (also `bool`, `float` and indexing with a tensor), `tolist`, `nonzero`, `bool index`, `repeat_interleave`
    without `output_size`, and others whose result's size depends on values; copies to the host; copies to the device
    of memory that is not pinned, or not `non_blocking`. `copies` are all copies to the device, waited for or not.
    """

    device = DEVICE

    def __init__(self) -> None:
        self.launches: Counter[Event] = Counter()
        self.syncs: Counter[Event] = Counter()
        self.copies: Counter[Event] = Counter()

    def clear(self) -> None:
        """Set all counters to zero."""
        for counter in (self.launches, self.syncs, self.copies):
            counter.clear()

    @property
    def num_launches(self) -> int:
        """Operations that compute."""
        return self.launches.total()

    @property
    def num_syncs(self) -> int:
        """Waits for the device."""
        return self.syncs.total()

    @property
    def num_copies(self) -> int:
        """Copies to the device."""
        return self.copies.total()

    def summary(self, lines: int = 10) -> str:
        """The three counts, and the places with the most syncs."""
        head = f"{self.num_launches} launches, {self.num_syncs} syncs, {self.num_copies} copies to the device"
        places = [f"{count:6d}  {event.what:24} {event.where}" for event, count in self.syncs.most_common(lines)]
        return "\n".join([head, *places])

    def move(self, module: nn.Module) -> nn.Module:
        """Put a module's parameters and buffers on the device, in place; parameters that were shared still are.

        Gradients are dropped. Move a module before an optimizer or a copy of its weights is made.
        """
        moved: dict[int, Tensor] = {}

        def on_paper(tensor: Tensor) -> Tensor:
            if isinstance(tensor, PaperTensor):
                return tensor
            if id(tensor) not in moved:
                copy = PaperTensor(tensor.detach().clone())
                is_parameter = isinstance(tensor, nn.Parameter)
                moved[id(tensor)] = nn.Parameter(copy, tensor.requires_grad) if is_parameter else copy
            return moved[id(tensor)]

        for part in module.modules():
            for tensors in (part._parameters, part._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        tensors[name] = on_paper(tensor)  # pyright: ignore[reportArgumentType]
        return module

    # ---- called by the tensors --------------------------------------------------------------------------------------

    def launched(self, operation: str) -> None:
        """An operation that computes."""
        self.launches[Event(operation, calling_line())] += 1

    def synced(self, what: str) -> None:
        """The host waits for the device."""
        self.syncs[Event(what, calling_line())] += 1

    def copied(self, what: str, waits: bool) -> None:
        """A copy to the device, for which the host waits unless it is of pinned memory and non-blocking."""
        where = calling_line()
        self.copies[Event(what, where)] += 1
        if waits:
            self.syncs[Event(what, where)] += 1


@contextmanager
def paper_gpu() -> Iterator[PaperGPU]:
    """Inside, `device="meta"` and `PaperGPU.device` mean the GPU on paper; its tensors are useless afterwards."""
    gpu = PaperGPU()
    with FunctionMode(), DispatchMode(gpu):
        yield gpu
