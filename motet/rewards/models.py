"""Models of rewards: frozen, in evaluation mode, on the policy's device, one copy for all rewards that use it."""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import nn

from motet.core.errors import ConfigError
from motet.core.protocols import Policy
from motet.core.registry import first_line
from motet.weights.hf_output import suppress_hf_output
from motet.weights.hub import missing_reason

_LOADED: WeakValueDictionary[tuple[str, str, str], nn.Module] = WeakValueDictionary()


def device_of(policy: Policy) -> torch.device:
    """Where the policy's trainable weights are."""
    return next((parameter.device for parameter in policy.trainable().values()), torch.device("cpu"))


def load_model(
    auto: Any,
    path: str,
    device: torch.device,
    *,
    key: str,
    dtype: torch.dtype = torch.float32,
    allow_missing_prefix: str | None = None,
    **settings: Any,
) -> Any:
    """A transformers model from a folder or hub id: frozen, in evaluation mode.

    `auto` is the class whose `from_pretrained` is called, `key` the recipe's key of the path; a weight whose
    name begins with `allow_missing_prefix` may be missing (a head that is not used); `settings` override the model's
    config.
    Raises ConfigError when the model cannot be loaded or its weights are incomplete: transformers fills gaps with
    random weights and warns only.
    """
    known = (auto.__name__, path, f"{device} {dtype} {settings}")
    model = _LOADED.get(known)
    if model is None:
        model, found = _open(auto, path, key, "model", output_loading_info=True, dtype=dtype, **settings)
        missing = [
            name
            for name in found["missing_keys"]
            if allow_missing_prefix is None or not name.startswith(allow_missing_prefix)
        ]
        if missing or found["mismatched_keys"]:
            named = ", ".join(sorted(map(str, [*missing, *found["mismatched_keys"]]))[:3])
            raise ConfigError(f"{key}={path!r} lacks weights: {named}.", fix="give a complete checkpoint.")
        _LOADED[known] = model = freeze_model(model, device)
    return model


def load_processor(auto: Any, path: str, *, key: str) -> Any:
    """A tokenizer, an image processor or a config from a folder or hub id. Raises ConfigError."""
    return _open(auto, path, key, "file")


def freeze_model(model: Any, device: torch.device) -> Any:
    """The model on the device, in evaluation mode, without gradients."""
    return model.to(device).eval().requires_grad_(False)


def _open(auto: Any, path: str, key: str, what: str, **settings: Any) -> Any:
    missing = missing_reason(path, what)
    if missing is not None:
        raise ConfigError(f"{key}: {missing}", fix="check the path or the hub id, the network, and `hf auth login`.")
    with suppress_hf_output():
        try:
            return auto.from_pretrained(path, **settings)
        except Exception as error:  # transformers, tokenizers, safetensors and the hub client raise kinds of their own
            raise ConfigError(
                f"{key}={path!r} cannot be loaded as {auto.__name__}: {first_line(error)}",
                fix=f"give a folder or hub id with a {what} that {auto.__name__} loads.",
            ) from error
