"""Open a diffusers pipeline, a folder or a hub id, as a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from motet.errors import CheckpointError
from motet.lookup import first_line
from motet.policies.denoisers.open import diffusers_library, index_of, open_denoiser
from motet.policies.pipelines.policy import PipelinePolicy
from motet.policies.pipelines.prompts import check_pipeline
from motet.quiet import quiet


def open_pipeline(
    source: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    frozen_dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    embedded_guidance: float | None = None,
    source_adapter: bool = False,
    **settings: Any,
) -> PipelinePolicy:
    """The policy of a pipeline folder or hub id, nothing of it training yet; `settings` are `PipelinePolicy`'s.

    `dtype` is the transformer's, `frozen_dtype` that of text encoders and autoencoder, None: the same. What trains
    becomes float32, so load it as float32 if its checkpoint is. Raises CheckpointError for a folder that is missing,
    broken or of a pipeline that is not known, ConfigError for options that it does not have.
    """
    library = diffusers_library()
    source = str(source)
    index = index_of(source)
    check_pipeline(str(index.get("_class_name")), source)
    if not Path(source).is_dir():
        source = _downloaded(library, source)
    denoiser = open_denoiser(
        source,
        dtype=dtype,
        frozen_dtype=frozen_dtype,
        device=device,
        embedded_guidance=embedded_guidance,
        source_adapter=source_adapter,
    )
    try:
        with quiet():
            pipeline = getattr(library, index["_class_name"]).from_pretrained(
                source,
                transformer=denoiser.transformer,
                vae=denoiser.vae,
                scheduler=denoiser.scheduler,
                torch_dtype=frozen_dtype or dtype,
            )
    except Exception as error:  # diffusers, transformers and tokenizers each have their kinds
        raise CheckpointError(
            f"{source!r} cannot be loaded: {first_line(error)}",
            fix="give a complete folder that a pipeline's save_pretrained wrote, or a hub id.",
        ) from error
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module) and name not in ("transformer", "vae"):
            part.to(device)
    return PipelinePolicy(pipeline, denoiser, folder=Path(source), **settings)


def _downloaded(library: Any, source: str) -> str:
    """The folder in the hub's cache that holds a hub id's files."""
    try:
        with quiet():
            return str(library.DiffusionPipeline.download(source))
    except Exception as error:  # offline, no access: the hub client has a kind for each
        raise CheckpointError(
            f"{source!r} cannot be downloaded: {first_line(error)}", fix="check the network and `hf auth login`."
        ) from error
