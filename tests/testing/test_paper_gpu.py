"""The GPU on paper: right numbers, no mixing of devices, and every kind of sync and copy is counted at its line."""

from collections import Counter

import pytest
import torch
from torch import nn

from motet.testing import paper_gpu

HERE = "tests/testing/test_paper_gpu.py"


@pytest.fixture
def gpu():
    with paper_gpu() as gpu:
        yield gpu


def on(gpu, values, **options):
    tensor = torch.tensor(values, **options).to(gpu.device)
    gpu.clear()
    return tensor


SYNCS = {
    "item": lambda x: x.sum().item(),
    "item of bool": lambda x: bool((x > 0).all()),
    "item of an index": lambda x: x[x.argmax()],
    "tolist": lambda x: x.tolist(),
    "nonzero": lambda x: x.nonzero(),
    "nonzero of where": lambda x: torch.where(x > 1),
    "masked_select": lambda x: x.masked_select(x > 1),
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "bool index": lambda x: x[x > 1],
    "bool index written": lambda x: x.clone().index_put_((x > 1,), x[:2]),
    "repeat_interleave": lambda x: x.repeat_interleave(torch.ones_like(x, dtype=torch.long)),
    "copy to the host": lambda x: x.cpu(),
    "copy to the host in place": lambda x: torch.zeros(3).copy_(x),
    "copy to the host unpinned": lambda x: torch.zeros(3).copy_(x, non_blocking=True),
    "copy to the device": lambda x: torch.ones(3).to(x.device),
    "copy to the device of numbers": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "copy to the device of new numbers": lambda x: x.new_tensor([1.0, 2.0]),
    "copy to the device unpinned": lambda x: torch.ones(3).to(x.device, non_blocking=True),
    "copy to the device blocking": lambda x: torch.ones(3).pin_memory().to(x.device),
    "copy to the device in place": lambda x: x.clone().copy_(torch.ones(3)),
    "index from the host": lambda x: x[torch.tensor([0, 2])],
}


@pytest.mark.parametrize("name", SYNCS)
def test_every_kind_of_sync_is_counted_once(gpu, name):
    x = on(gpu, [1.0, 2.0, 3.0])
    SYNCS[name](x)
    (((what, where), count),) = gpu.syncs.items()
    assert (name.startswith(what), count) == (True, 1)
    assert where.startswith(f"{HERE}:")
    assert gpu.num_copies == (what in ("copy to the device", "index from the host"))


def test_what_a_gpu_does_alone_is_no_sync(gpu):
    x, index = on(gpu, [1.0, 2.0, 3.0]), torch.tensor([0, 2]).to(gpu.device)
    pinned = torch.ones(3).pin_memory()
    gpu.clear()
    y = x[index] * torch.tensor(2.0) + torch.arange(2, device=gpu.device)
    y = y.repeat_interleave(2, output_size=4).masked_fill(torch.zeros(4, dtype=torch.bool, device=gpu.device), 0.0)
    y[y > 100] = 0.0
    torch.cat([y, y.new_zeros(2), torch.zeros_like(x)]).split([4, 5])
    assert gpu.num_syncs == gpu.num_copies == 0
    pinned.copy_(x, non_blocking=True)
    assert gpu.num_syncs == 0
    pinned.to(gpu.device, non_blocking=True)
    assert (gpu.num_syncs, gpu.num_copies) == (0, 1)


def test_operations_that_compute_are_launches(gpu):
    x = on(gpu, [[1.0, 2.0], [3.0, 4.0]])
    (x.T.unsqueeze(0) @ x)[0].detach().view(4).exp().add_(torch.empty(4, device=gpu.device))
    assert Counter(event.what for event in gpu.launches.elements()) == {"mm": 1, "exp": 1, "add_": 1}
    assert {event.where.rpartition(":")[0] for event in gpu.launches} == {HERE}
    assert "3 launches, 0 syncs, 0 copies" in gpu.summary()


@pytest.mark.parametrize(
    "mix",
    [
        lambda x, y: x + y,
        lambda x, y: x @ y,
        lambda x, y: torch.cat([x, y]),
        lambda x, y: torch.stack([x.sum(), y.sum()]),
        lambda x, y: y[x.long()],
        lambda x, y: torch.where(x > 0, x, y),
        lambda x, y: x.add_(y),
        lambda x, y: x.sum() * y,
    ],
)
def test_devices_are_not_mixed(gpu, mix):
    x, y = on(gpu, [1.0, 0.0]), torch.ones(2)
    for arguments in ((x, x), (y, y)):
        mix(*arguments)
    with pytest.raises(RuntimeError, match="on one device"):
        mix(x, y)


def test_a_meta_tensor_made_outside_has_no_values():
    empty = torch.ones(2, device="meta")
    with paper_gpu() as gpu, pytest.raises(RuntimeError, match="has no values"):
        on(gpu, [1.0, 2.0]) + empty


def test_training_gives_the_same_numbers_as_on_the_cpu():
    """Backward, checkpointing, clipping, AdamW, swapped `.data`, in-place writes through views."""

    def train(device, move):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        move(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        x = torch.linspace(-1, 1, 12).view(3, 4).to(device)
        for _ in range(3):
            optimizer.zero_grad()
            hidden = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)
            hidden[:, 0].mul_(2.0)
            hidden.square().sum().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        before = [parameter.data for parameter in model.parameters()]
        for parameter in model.parameters():
            parameter.data = torch.zeros_like(parameter)
        assert model(x).abs().sum().item() == 0.0
        for parameter, values in zip(model.parameters(), before, strict=True):
            parameter.data = values
        return model(x).detach().cpu()

    with paper_gpu() as gpu:
        found = train(gpu.device, gpu.move)
    assert torch.equal(found, train("cpu", lambda model: model))


def test_shared_parameters_stay_shared(gpu):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.head.weight = self.embed.weight
            self.register_buffer("scale", torch.ones(1))

    model = gpu.move(Tied())
    assert model.head.weight is model.embed.weight and model.head.weight.requires_grad
    assert {tensor.device for tensor in (*model.parameters(), *model.buffers())} == {gpu.device}
    assert next(iter(gpu.move(model).parameters())) is model.embed.weight


def test_numpy_is_rejected_and_nothing_is_left_behind():
    with paper_gpu() as gpu:
        x = on(gpu, [1.0, 2.0])
        for convert in (lambda: x.numpy(), lambda: __import__("numpy").asarray(x)):
            with pytest.raises(TypeError, match="cpu"):
                convert()
        assert f"{x.sum():.1f}" == "3.0"
    for use in (lambda: x + 1, x.tolist):
        with pytest.raises(RuntimeError, match="outside of paper_gpu"):
            use()
    assert torch.ones(2, device="meta").is_meta and torch.tensor([1.0]).sum().item() == 1.0
