"""A unified model's folder: `language_model/` as transformers saves it, `transformer/`, `vae/` and `scheduler/` as
diffusers does, and between them `connector.safetensors` with its sizes in `config.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from motet.config import DiffusionConfig
from motet.core.errors import CheckpointError
from motet.core.registry import first_line
from motet.core.write_errors import write_error
from motet.policies.diffusion.models import Denoiser, open_denoiser
from motet.policies.generation.policy import LanguageModelPolicy
from motet.policies.unified.connector import ConnectorConfig, QueryConnector
from motet.weights.safetensors_io import save_tensors

MODEL_TYPE = "motet_unified"
LANGUAGE, _CONNECTOR = "language_model", "bridge.safetensors"


def save_unified(
    folder: Path, text_policy: LanguageModelPolicy, connector: QueryConnector, denoiser: Denoiser, size: tuple[int, int]
) -> None:
    """Write all parts. Raises CheckpointError when they cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text_policy.save(folder / LANGUAGE)
        denoiser.save(folder)
        save_tensors(
            folder / _CONNECTOR, {name: value.detach().cpu() for name, value in connector.state_dict().items()}
        )
        config = {
            "model_type": MODEL_TYPE,
            "connector": connector.config.to_dict(),
            "height": size[0],
            "width": size[1],
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise write_error(CheckpointError, repr(str(folder)), error) from error


def open_unified(
    folder: Path,
    text_policy: LanguageModelPolicy,
    device: torch.device,
    settings: DiffusionConfig,
    dtype: torch.dtype | str = torch.float32,
) -> dict[str, Any]:
    """The arguments of `UnifiedPolicy` beside its text policy: `connector`, `denoiser`, `height` and `width`.

    `settings` may give another image size than the checkpoint's own. `dtype` is the denoiser's, "auto": as it is
    stored; the connector is float32. Raises CheckpointError for a folder in which a part is missing, broken, or does
    not fit the others.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        sizes = ConnectorConfig(**config["connector"])
        height, width = settings.size or (int(config["height"]), int(config["width"]))
        weights = load_file(str(folder / _CONNECTOR))
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"{str(folder)!r} is not a complete unified checkpoint: {first_line(error)}.",
            fix=f"give a folder that motet saved, with config.json and {_CONNECTOR}.",
        ) from error
    denoiser = open_denoiser(folder, dtype=dtype, device=device, embedded_guidance=settings.embedded_guidance)
    connector = QueryConnector(sizes).to(device)
    _check_parts_fit(folder, sizes, text_policy, denoiser)
    try:
        connector.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{str(folder / _CONNECTOR)!r} does not fit config.json: {first_line(error)}.", fix="restore both files."
        ) from error
    return {"connector": connector, "denoiser": denoiser, "height": height, "width": width}


def _check_parts_fit(
    folder: Path, sizes: ConnectorConfig, text_policy: LanguageModelPolicy, denoiser: Denoiser
) -> None:
    """Check that the connector fits the text policy and the denoiser."""
    has_image_tokens = "image" in text_policy.kinds
    expected = {
        "input_width": text_policy.model.config.text_config.hidden_size,
        "output_width": denoiser.condition_width,
        "pooled_width": denoiser.pooled_width,
        "reads": "tokens" if has_image_tokens else "queries",
        "num_queries": text_policy.adapter.num_image_tokens if has_image_tokens else sizes.num_queries,
    }
    for name, value in expected.items():
        if getattr(sizes, name) != value:
            raise CheckpointError(
                f"{str(folder / 'config.json')!r} says connector.{name}={getattr(sizes, name)}, but the model beside "
                f"it has {value}.",
                fix="use the connector that was trained with these models.",
            )
