"""Open a diffusers pipeline, a folder or a hub id, as a policy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from motet.core.errors import CheckpointError
from motet.core.registry import first_line
from motet.policies.diffusion.models.loading import diffusers_library, dtype_of, local_folder, open_denoiser
from motet.policies.diffusion.pipeline.policy import PipelinePolicy
from motet.policies.diffusion.pipeline.prompts import check_pipeline
from motet.weights.hf_output import suppress_hf_output
from motet.weights.safetensors_io import read_json


def open_pipeline(
    source: str | Path,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str = "cpu",
    embedded_guidance: float | None = None,
    source_adapter: bool = False,
    **settings: Any,
) -> PipelinePolicy:
    """The policy of a pipeline folder or hub id, nothing of it training yet; `settings` are `PipelinePolicy`'s.

    `dtype` "auto" keeps what is stored, component by component; what trains becomes float32. Raises CheckpointError for
    a folder that is missing, broken or of a pipeline that is not known, ConfigError for options that it does not have.
    """
    library = diffusers_library()
    index = read_json(local_folder(str(source), ["model_index.json"]) / "model_index.json", missing_ok=True)
    name = str(index.get("_class_name"))
    check_pipeline(name, str(source))
    folder = Path(source) if Path(source).is_dir() else _downloaded(library, str(source))
    denoiser = open_denoiser(
        folder,
        dtype=dtype,
        device=device,
        embedded_guidance=embedded_guidance,
        source_adapter=source_adapter,
    )
    try:
        with suppress_hf_output(), _suppress_diffusers_output(library):
            pipeline = getattr(library, name).from_pretrained(
                folder,
                transformer=denoiser.transformer,
                vae=denoiser.vae,
                scheduler=denoiser.scheduler,
                torch_dtype=dtype if isinstance(dtype, torch.dtype) else _dtypes(folder, index),
                use_safetensors=True,
            )
    except Exception as error:  # diffusers, transformers and tokenizers each have their kinds
        raise CheckpointError(
            f"{str(source)!r} cannot be loaded: {first_line(error)}",
            fix="give a complete folder that a pipeline's save_pretrained wrote, or a hub id.",
        ) from error
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(device)
    return PipelinePolicy(pipeline, denoiser, folder=folder, **settings)


def _dtypes(folder: Path, components: Iterable[str]) -> dict[str, torch.dtype]:
    """The type that each component with weights is stored in."""
    return {name: dtype_of(folder / name) for name in components if any((folder / name).glob("*.safetensors"))}


def _downloaded(library: Any, source: str) -> Path:
    """The folder in the hub's cache that holds a hub id's files."""
    try:
        with suppress_hf_output(), _suppress_diffusers_output(library):
            return Path(library.DiffusionPipeline.download(source, use_safetensors=True))
    except Exception as error:  # offline, no access: the hub client has a kind for each
        raise CheckpointError(
            f"{source!r} cannot be downloaded: {first_line(error)}", fix="check the network and `hf auth login`."
        ) from error


@contextmanager
def _suppress_diffusers_output(library: Any) -> Iterator[None]:
    """diffusers without its progress bars and advice, as `motet.weights.hf_output` keeps transformers."""
    logging = library.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
