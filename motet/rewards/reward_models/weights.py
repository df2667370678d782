"""Weights of reward models that are published as one file, in the layout of another library than transformers.

Files are read without pickle's code: safetensors, or `torch.load(weights_only=True)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from motet.core.errors import ConfigError
from motet.core.registry import first_line
from motet.rewards.models import freeze_model
from motet.rewards.reward_models.base import Placement
from motet.weights.hf_output import suppress_hf_output
from motet.weights.hub import missing_reason

NESTED = ("state_dict", "model")
"""Keys under which training scripts store the weights beside other things."""


def read_weights(path: str, *, key: str) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU. `path` is a file, or `OWNER/NAME/FILE` on the Hugging Face Hub.

    Raises ConfigError naming `key`, the recipe's key of the path.
    """
    file = _local_file(path, key)
    try:
        if file.suffix == ".safetensors":
            content: Any = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise kinds of their own
        raise ConfigError(
            f"{key}={path!r} cannot be read as weights: {first_line(error)}.",
            fix="give a .safetensors file, or a torch file that holds tensors only.",
        ) from error
    for name in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ConfigError(
            f"{key}={path!r} does not hold tensors by name, but {type(content).__name__}.",
            fix="give the file of the published weights.",
        )
    return {str(name): value for name, value in content.items()}


def build_model(
    auto: Any,
    config: Any,
    weights: Mapping[str, Tensor],
    placement: Placement,
    *,
    key: str,
    path: str,
    unused: tuple[str, ...] = (),
) -> Any:
    """A transformers model with these weights, by transformers' names: frozen, in evaluation mode.

    Weights whose names begin with one of `unused` may be missing: they do not affect the score. Raises ConfigError
    naming the weights that are missing, left over, or of another shape than `config` has.
    """
    with suppress_hf_output():
        model, found = auto.from_pretrained(
            None,
            config=config,
            state_dict=dict(weights),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named below
            dtype=placement.dtype,
        )
    missing = {name for name in found["missing_keys"] if not unused or not name.startswith(unused)}
    check_names(missing or found["mismatched_keys"], found["unexpected_keys"], key=key, path=path)
    return freeze_model(model, placement.device)


def load_module(module: nn.Module, weights: Mapping[str, Tensor], device: torch.device, *, key: str, path: str) -> Any:
    """The module with these weights in float32: frozen, in evaluation mode. Raises ConfigError like `build_model`."""
    own = module.state_dict()
    wrong = {name for name, value in own.items() if name not in weights or weights[name].shape != value.shape}
    check_names(wrong, weights.keys() - own.keys(), key=key, path=path)
    module.load_state_dict(dict(weights))
    return freeze_model(module.float(), device)


def check_names(missing: Any, unexpected: Any, *, key: str, path: str) -> None:
    """Raise ConfigError naming weights that are missing or have another shape, or that the model does not have."""
    if missing:
        _raise_names(key, path, "lacks weights, or has them in another shape", missing)
    if unexpected:
        _raise_names(key, path, "has weights that the model does not have", unexpected)


def _raise_names(key: str, path: str, problem: str, names: Any) -> NoReturn:
    ordered = sorted(str(name[0] if isinstance(name, tuple) else name) for name in names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    raise ConfigError(
        f"{key}={path!r} {problem}: {', '.join(ordered[:3])}{more}.", fix="give the file of the published weights."
    )


def _local_file(path: str, key: str) -> Path:
    local = Path(path).expanduser()
    if local.is_file():
        return local
    if local.is_dir():
        raise ConfigError(f"{key}={path!r} is a folder, not a file of weights.", fix="name the file in that folder.")
    repository, _, name = path.rpartition("/")
    missing = missing_reason(repository, "file") if repository.count("/") == 1 else f"There is no file at {path!r}."
    if missing is not None:
        raise ConfigError(f"{key}: {missing}", fix="give a file, or OWNER/NAME/FILE on the Hugging Face Hub.")
    from huggingface_hub import hf_hub_download

    with suppress_hf_output():
        try:
            return Path(hf_hub_download(repository, name))
        except Exception as error:  # no such file, no access, no network: the hub client has a class for each
            raise ConfigError(
                f"{key}={path!r} cannot be downloaded: {first_line(error)}.",
                fix="check the name of the file, the network, and `hf auth login`.",
            ) from error
