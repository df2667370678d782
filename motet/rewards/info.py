"""What users want to know of a reward before they choose it: the record that `motet rewards` lists."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RewardInfo:
    """One reward's model, its licence and size, the range of its values, and where it runs.

    `license` is that of the weights, as their publisher states it; `size` the number of parameters or the bytes of a
    download. `runs` is where the computation happens: in the process on the CPU, on the policy's device, or at an
    endpoint. `extra` is motet's extra that it needs (`pip install "motet[EXTRA]"`).
    """

    range: str
    model: str | None = None
    license: str | None = None
    size: str | None = None
    runs: str = "CPU"
    extra: str | None = None


BINARY = "0 or 1"
UNIT = "[0, 1]"
DEVICE = "policy's device"
ENDPOINT = "endpoint"
