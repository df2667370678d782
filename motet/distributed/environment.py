"""What the launcher of a run says about this process, in environment variables. Imports no torch."""

from __future__ import annotations

import os


def launched_by_torchrun() -> bool:
    """Whether this process is one of several that `torchrun` or a scheduler started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def global_rank() -> int:
    """The number of this process among all of the run."""
    return int(os.environ.get("RANK", "0"))


def local_processes() -> int:
    """How many processes of the run share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
