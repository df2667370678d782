"""Open a diffusion transformer: which class it is says the checkpoint itself, never its path."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch

from motet.core.errors import CheckpointError, ConfigError
from motet.core.registry import first_line
from motet.policies.checkpoints import require_sizes
from motet.policies.diffusion.models.common import DiffusersDenoiser
from motet.policies.diffusion.models.flux import FluxDenoiser
from motet.policies.diffusion.models.flux2 import Flux2Denoiser
from motet.policies.diffusion.models.qwen_image import QwenImageDenoiser
from motet.policies.diffusion.models.sana import SanaDenoiser
from motet.policies.diffusion.models.sd3 import Sd3Denoiser
from motet.policies.diffusion.models.source_adapter import ADAPTER_FILE, DenoiserWithSourceAdapter
from motet.weights.hf_output import suppress_hf_output
from motet.weights.hub import missing_reason
from motet.weights.safetensors_io import StoredWeights, read_json

DENOISERS: dict[str, type[DiffusersDenoiser]] = {
    family.transformer_class: family
    for family in (Sd3Denoiser, SanaDenoiser, FluxDenoiser, Flux2Denoiser, QwenImageDenoiser)
}
"""The families, by the class of their transformer."""
EDITING = (
    "FluxKontextPipeline",
    "Flux2Pipeline",
    "Flux2KleinPipeline",
    "QwenImageEditPipeline",
    "QwenImageEditPlusPipeline",
)
"""Pipelines whose transformer was trained with source images."""
_FILES = ("model_index.json", "transformer/*", "vae/*", "scheduler/*", ADAPTER_FILE)
"""What a denoiser needs of a repository on the hub."""


def diffusers_library() -> Any:
    """The module diffusers, which is an extra. Raises ConfigError without it."""
    try:
        import diffusers
    except ImportError:
        raise ConfigError(
            "Diffusion transformers need the package diffusers.", fix="pip install 'motet[diffusion]'."
        ) from None
    return diffusers


def open_denoiser(
    source: str | Path,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str = "cpu",
    embedded_guidance: float | None = None,
    source_adapter: bool = False,
) -> DiffusersDenoiser:
    """The denoiser of a pipeline folder or hub id, or of a folder with `transformer/` alone; all of it frozen.

    Its class is the one that `model_index.json` names, else `transformer/config.json`. Without `vae/` latents are
    pixels, without `scheduler/` the schedule is unshifted. `dtype` "auto" keeps what is stored. `source_adapter` gives
    SANA or SD3 an adapter for source images; a folder that holds one has it anyway. Raises CheckpointError for a folder
    that is missing, broken or of another class, ConfigError for options that the class does not have.
    """
    library = diffusers_library()
    folder = local_folder(str(source), _FILES)
    index = read_json(folder / "model_index.json", missing_ok=True)
    config = read_json(folder / "transformer" / "config.json", missing_ok=True)
    family = denoiser_class_for(str(source), (index.get("transformer") or (None, None))[1] or config.get("_class_name"))
    transformer = _load(getattr(library, family.transformer_class), folder, "transformer", dtype)
    vae_class = read_json(folder / "vae" / "config.json", missing_ok=True).get("_class_name")
    vae = _load(getattr(library, vae_class, None), folder, "vae", dtype) if vae_class else None
    scheduler = _scheduler_of(library, folder)
    pipeline_class = index.get("_class_name")
    return build_denoiser(
        transformer.to(device),
        None if vae is None else vae.to(device),
        scheduler,
        edits=pipeline_class is None or pipeline_class in EDITING,
        embedded_guidance=embedded_guidance,
        adapter=folder if (folder / ADAPTER_FILE).is_file() else source_adapter,
    )


def build_denoiser(
    transformer: Any,
    vae: Any,
    scheduler: Any,
    *,
    edits: bool = False,
    embedded_guidance: float | None = None,
    adapter: Path | bool = False,
) -> DiffusersDenoiser:
    """The denoiser around components that are loaded already. `adapter`: make one for sources, or load a folder's."""
    family = denoiser_class_for("transformer", type(transformer).__name__)
    if issubclass(family, DenoiserWithSourceAdapter):
        made = family(
            transformer, vae, scheduler, embedded_guidance=embedded_guidance, source_adapter=adapter is not False
        )
        if isinstance(adapter, Path):
            made.load_adapter(adapter)
        return made
    if adapter is not False:
        raise ConfigError(
            f"source_adapter is SANA's and SD3's: a {family.transformer_class} has no place for one.",
            fix="leave it out.",
        )
    return family(transformer, vae, scheduler, edits=edits, embedded_guidance=embedded_guidance)


def denoiser_class_for(source: str, name: str | None) -> type[DiffusersDenoiser]:
    """The denoiser class for a transformer class. Raises CheckpointError for any other."""
    if name not in DENOISERS:
        raise CheckpointError(
            f"{source!r} has a transformer of class {name!r}, which motet has no denoiser for.",
            fix=f"use a checkpoint with one of: {', '.join(DENOISERS)}.",
        )
    return DENOISERS[name]


def local_folder(source: str, files: Sequence[str]) -> Path:
    """The folder itself, or the one in the hub's cache with these files of a hub id. Raises CheckpointError."""
    if Path(source).is_dir():
        return Path(source)
    missing = missing_reason(source, "checkpoint")
    if missing is not None:
        raise CheckpointError(missing, fix="check the path or the hub id, the network, and `hf auth login`.")
    import huggingface_hub

    try:
        with suppress_hf_output():
            return Path(huggingface_hub.snapshot_download(source, allow_patterns=list(files)))
    except Exception as error:  # offline, no such repository, no access: the hub client has a kind for each
        raise CheckpointError(
            f"{source!r} is not a local folder, and could not be found on the Hub: {first_line(error)}",
            fix="check the path or the hub id, the network, and `hf auth login`.",
        ) from error


def dtype_of(folder: Path) -> torch.dtype:
    """The type that holds all weights of a component's folder, as safetensors of diffusers or of transformers."""
    named = any(folder.glob("diffusion_pytorch_model.*"))
    stored = StoredWeights(folder, "diffusion_pytorch_model" if named else "model")
    return reduce(torch.promote_types, (dtype for dtype in stored.dtypes.values() if dtype.is_floating_point))


def _scheduler_of(library: Any, folder: Path) -> Any:
    name = read_json(folder / "scheduler" / "scheduler_config.json", missing_ok=True).get("_class_name")
    if name is None:
        return library.FlowMatchEulerDiscreteScheduler()
    scheduler_class = getattr(library, name, None)
    if scheduler_class is None:
        raise CheckpointError(
            f"{str(folder)!r} names the scheduler {name!r}, which diffusers does not have.", fix="update diffusers."
        )
    return scheduler_class.from_pretrained(folder, subfolder="scheduler")


def _load(model_class: Any, folder: Path, part: str, dtype: torch.dtype | str) -> Any:
    """A part's model. Raises CheckpointError unless its weights are all there and fit."""
    stem = "diffusion_pytorch_model" if any((folder / part).glob("diffusion_pytorch_model.*")) else "model"
    require_sizes(folder / part, "config.json", stem)
    try:
        chosen = (
            dtype if isinstance(dtype, torch.dtype) else dtype_of(folder / part)
        )  # diffusers does not support "auto"
        with suppress_hf_output():
            model, found = model_class.from_pretrained(
                folder, subfolder=part, output_loading_info=True, torch_dtype=chosen, use_safetensors=True
            )
    except Exception as error:  # a missing or broken file: diffusers, safetensors and torch each have their kinds
        raise CheckpointError(
            f"{str(folder / part)!r} cannot be loaded: {first_line(error)}",
            fix="give a complete folder that diffusers' save_pretrained wrote, or a hub id.",
        ) from error
    wrong = [*found["missing_keys"], *found["unexpected_keys"], *(str(key) for key in found["mismatched_keys"])]
    if wrong:
        raise CheckpointError(
            f"{str(folder / part)!r} lacks weights or has others than its config.json says: "
            f"{', '.join(sorted(wrong)[:3])}.",
            fix="give the complete checkpoint.",
        )
    return model
