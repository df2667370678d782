"""A process group of this process alone, for what needs one."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from motet.core.errors import ConfigError
from motet.distributed.sharded_files import require_torch


@pytest.fixture(scope="module")
def process_group() -> Iterator[None]:
    try:
        require_torch("--parallel fsdp")
    except ConfigError as error:
        pytest.skip(error.problem)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    torch.set_num_threads(threads)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In these tests actors die on purpose, and motet warns of each."""
    for item in items:
        if "tests/distributed/" in item.nodeid:
            item.add_marker(pytest.mark.filterwarnings("ignore:.*it is replaced, and its work is done again"))
