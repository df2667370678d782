"""Tensors of the GPU on paper (`motet.testing.paper_gpu`): what each operation does there, and what it counts as."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")
aten: Any = torch.ops.aten

SYNCS: dict[Any, str] = {
    aten._local_scalar_dense: "item",
    aten.nonzero: "nonzero",
    aten.masked_select: "masked_select",
    aten.masked_scatter_backward: "masked_select",
    aten.equal: "equal",
    aten.allclose: "allclose",
    aten._unique2: "unique",
    aten.unique_dim: "unique",
    aten.unique_consecutive: "unique",
    aten.bincount: "bincount",
}
"""Operations whose result, or its size, the host has to know."""
INDEXING = {aten.index, aten._unsafe_index, aten.index_put, aten.index_put_, aten._index_put_impl_}
"""Operations that take index tensors of the CPU too, and copy them to the device."""
NOT_LAUNCHED = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided}
NOT_LAUNCHED |= {aten._unsafe_view, aten._local_scalar_dense}
"""Operations that compute nothing, beside views: allocations, and copies to the host, which are counted as syncs."""
SCALARS = {aten.where, aten.masked_fill, aten.masked_fill_, aten.fill, aten.fill_, aten.index_fill, aten.index_fill_}
"""Operations beside the pointwise ones that take a 0-d tensor of the CPU as a number."""


@runtime_checkable
class Counters(Protocol):
    """Where it is counted what operations are on a GPU: `motet.testing.paper_gpu.PaperGPU`."""

    def launched(self, operation: str) -> None: ...
    def synced(self, what: str) -> None: ...
    def copied(self, what: str, waits: bool) -> None: ...


class PaperTensor(Tensor):
    """A tensor that says it is on `DEVICE`; `inner` is the CPU tensor that it computes with."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> PaperTensor:
        made: PaperTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on a tensor of the paper GPU outside of paper_gpu(): use it inside the context")

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, PaperTensor):
            raise RuntimeError("the data of a tensor on the paper GPU must be on it too: move it there first")
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.inner = value.inner

    def tolist(self) -> Any:
        """As a list: a copy to the host."""
        if not _active:
            raise RuntimeError("tolist of a tensor of the paper GPU outside of paper_gpu(): use it inside the context")
        _active[-1].synced("tolist")
        return self.inner.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Rejected, as for every tensor that is not on the host."""
        raise TypeError("a tensor on the paper GPU cannot become numpy: copy it to the host first, with cpu()")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def __format__(self, form: str) -> str:
        return format(self.item(), form) if self.dim() == 0 else repr(self)

    def __repr__(self, **_: Any) -> str:
        return f"PaperTensor({tuple(self.shape)}, {self.dtype})"


_active: list[Counters] = []
"""Of the contexts that are open, the innermost last."""


def is_paper(device: Any) -> bool:
    """Whether an argument `device` names the paper GPU."""
    return device is not None and torch.device(device) == DEVICE


class FunctionMode(TorchFunctionMode):
    """Makes tensors of Python numbers: torch itself makes them below every mode, and on `meta` without their values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and is_paper(given.get("device")):
            if isinstance(args[0], PaperTensor):
                return args[0].to(given.get("dtype") or args[0].dtype)
            return func(*args, **{**given, "device": "cpu"}).to(DEVICE)
        if func is Tensor.new_tensor and is_paper(given.get("device") or args[0].device):
            return torch.tensor(args[1], dtype=given.get("dtype") or args[0].dtype).to(DEVICE)
        return func(*args, **given)


class DispatchMode(TorchDispatchMode):
    """Runs every operation below autograd on the CPU, and counts what it would be on a GPU."""

    def __init__(self, counters: Counters) -> None:
        super().__init__()
        self.counters = counters

    def __enter__(self) -> Any:
        _active.append(self.counters)
        return super().__enter__()

    def __exit__(self, *failure: Any) -> Any:
        _active.pop()
        return super().__exit__(*failure)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not torch.is_inference_mode_enabled():
            return self._run(func, args, dict(kwargs or {}))
        # In inference mode composite operations arrive whole, and views of a subclass cannot be made.
        with torch.inference_mode(False), torch.no_grad(), self:
            return func(*args, **(kwargs or {}))

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        tensors = list(_tensors((*args, *kwargs.values())))
        papers = [value for value in tensors if isinstance(value, PaperTensor)]
        on_paper = is_paper(kwargs["device"]) if kwargs.get("device") is not None else bool(papers)
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        if func is aten._to_copy.default:
            self._count_copy(on_paper, args[0], None, kwargs.get("non_blocking", False))
        elif func is aten.copy_.default:
            self._count_copy(isinstance(args[0], PaperTensor), args[1], args[0], any(args[2:]))
        else:
            if papers:
                _reject_mixed(func, args, [value for value in tensors if not isinstance(value, PaperTensor)])
                self._count_syncs(func.overloadpacket, args, kwargs)
            if on_paper and _launches(func):
                self.counters.launched(func.overloadpacket.__name__)
        if func is aten._pin_memory.default:
            return _pinned(args[0])
        result = func(*map(_inner, args), **{name: _inner(value) for name, value in kwargs.items()})
        return _wrapped(result, papers) if on_paper else result

    def _count_copy(self, to_paper: bool, source: Tensor, target: Tensor | None, non_blocking: bool) -> None:
        """Of a source, into a target where it is written to; only pinned memory is copied beside other work."""
        from_paper = isinstance(source, PaperTensor)
        if from_paper and to_paper:
            self.counters.launched("copy")
        elif (from_paper or to_paper) and source.numel():
            pinned = getattr(source if to_paper else target, "pinned_on_paper", False)
            waits = not (pinned and non_blocking)
            if to_paper:
                self.counters.copied("copy to the device", waits)
            elif waits:
                self.counters.synced("copy to the host")

    def _count_syncs(self, packet: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Of an operation with a tensor of the paper GPU."""
        if packet in SYNCS:
            self.counters.synced(SYNCS[packet])
        elif packet is aten.repeat_interleave and kwargs.get("output_size") is None:
            self.counters.synced("repeat_interleave")
        elif packet in INDEXING:
            indices = [index for index in args[1] if index is not None]
            for index in indices:
                if not isinstance(index, PaperTensor):
                    self.counters.copied("index from the host", waits=True)
            is_fill = len(args) > 2 and args[2].numel() == 1 and not any(args[3:])  # becomes a masked_fill
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices) and not is_fill:
                self.counters.synced("bool index")


def _reject_mixed(func: Any, args: Sequence[Any], others: Sequence[Tensor]) -> None:
    """Raise RuntimeError where an operation with a tensor of the paper GPU takes one of the CPU that CUDA would not."""
    if func.overloadpacket in INDEXING and isinstance(args[0], PaperTensor):
        others = [value for value in others if all(value is not index for index in args[1])]
    takes_numbers = torch.Tag.pointwise in func.tags or func.overloadpacket in SCALARS | INDEXING
    for value in others:
        if value.is_meta or value.dim() or not takes_numbers:
            where = "has no values" if value.is_meta else "is on the CPU"
            raise RuntimeError(
                f"{func} expects all tensors on one device, but one of shape {tuple(value.shape)} {where} and another "
                "is on the paper GPU: copy it to the device, or make it there"
            )


def _pinned(tensor: Tensor) -> Tensor:
    """A copy that counts as pinned; real pinned memory needs a real GPU."""
    copy: Any = tensor.clone()
    copy.pinned_on_paper = True
    return copy


def _launches(func: Any) -> bool:
    """Whether an operation computes something."""
    return func.overloadpacket not in NOT_LAUNCHED and not _is_view(func)


@cache
def _is_view(func: Any) -> bool:
    aliases: Iterable[Any] = (returned.alias_info for returned in func._schema.returns)
    return any(alias is not None and not alias.is_write for alias in aliases)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among an operation's arguments, which are in lists at most."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _inner(value: Any) -> Any:
    """What the CPU computes with, of an argument."""
    if isinstance(value, PaperTensor):
        return value.inner
    return [_inner(one) for one in value] if isinstance(value, list | tuple) else value


def _wrapped(value: Any, papers: Sequence[PaperTensor]) -> Any:
    """A result as tensors of the paper GPU; of an operation in place, the tensor that it was given."""
    if isinstance(value, list | tuple):
        return type(value)(_wrapped(one, papers) for one in value)
    if not isinstance(value, Tensor):
        return value
    for paper in papers:
        if paper.inner is value:
            if paper.shape != value.shape:
                raise RuntimeError("the paper GPU does not support operations that resize a tensor in place")
            return paper
    return PaperTensor(value)
