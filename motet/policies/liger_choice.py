"""Whether log-probs on a GPU go through Liger's kernel, for the first line of a run."""

from __future__ import annotations

import os

import torch

from motet.core.errors import ConfigError
from motet.numerics.liger import OLDEST, VARIABLE, installed_version, is_new_enough, uses_liger

INSTALL = "pip install 'motet[liger]'"


def describe_liger(device: torch.device) -> str:
    """One sentence, empty on a CPU. Raises ConfigError where the variable MOTET_LIGER asks for what cannot be had."""
    asked, found, oldest = os.environ.get(VARIABLE, ""), installed_version(), ".".join(map(str, OLDEST))
    if asked not in ("", "0", "1"):
        raise ConfigError(
            f"{VARIABLE}={asked!r} must be 0 or 1.", fix="set it to 0 (never) or 1 (required), or unset it."
        )
    if asked == "1" and device.type != "cuda":
        raise ConfigError(f"{VARIABLE}=1: Liger needs a GPU, and policy.device is {device.type}.", fix="unset it.")
    if asked == "1" and (found is None or not is_new_enough(found)):
        problem = "is not installed" if found is None else f"{found} is older than {oldest}, whose gradients are right"
        raise ConfigError(f"{VARIABLE}=1, but liger-kernel {problem}.", fix=f"{INSTALL}, or unset {VARIABLE}.")
    if device.type != "cuda":
        return ""
    if uses_liger():
        return f"Log-probs without entropy by liger-kernel {found}, the others in chunks."
    if found is not None and asked != "0":
        return f"Log-probs in chunks: liger-kernel {found} is older than {oldest}."
    return "Log-probs in chunks."
