"""The options of `motet train` for Ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from motet.core.errors import ConfigError
from motet.distributed.actor_pool import TIMEOUT
from motet.distributed.ray_options import OPTIONS, RayOptions

_PANEL: dict[str, Any] = {"rich_help_panel": "Ray (needs the extra ray)", "show_default": False}

RayAddress = Annotated[
    str | None,
    typer.Option("--ray", metavar="auto|ADDRESS", help="Run on a new cluster here, or on an existing one.", **_PANEL),
]
TrainWorkers = Annotated[
    int | None, typer.Option(min=1, help="Processes that train, restarted when one dies; default: 1.", **_PANEL)
]
RolloutActors = Annotated[
    int | None, typer.Option(min=1, help="Processes that sample, for each of those; default: 1.", **_PANEL)
]
RewardActors = Annotated[
    int | None, typer.Option(min=0, help="Processes that call rewards, for each of those; default: 0.", **_PANEL)
]
MaxStaleness = Annotated[
    int | None,
    typer.Option(
        min=0, help="Steps that rollouts and rewards start ahead of the update; default: 0.", show_default=False
    ),
]
GpusPerActor = Annotated[
    float | None,
    typer.Option(min=0.0, help="Of each rollout or reward actor; below 1 they share; default: equal parts.", **_PANEL),
]


def ray_options(address: str | None, given: Mapping[str, Any], timeout: float | None) -> RayOptions | None:
    """The options that were given, by the names of `RayOptions`; None without --ray. Raises ConfigError."""
    chosen = {name: value for name, value in given.items() if value is not None}
    if address is not None:
        return RayOptions(address, timeout=TIMEOUT if timeout is None else timeout, **chosen)
    for option, name in OPTIONS.items():
        if name in chosen and name != "max_staleness":
            raise ConfigError(f"{option} has no effect without --ray.", fix="add --ray auto, or leave it out.")
    return None
