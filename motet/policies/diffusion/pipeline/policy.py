"""A diffusers pipeline as a policy: it generates images by denoising, and its transformer trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from motet.policies.diffusion import DiffusionGenerator
from motet.policies.diffusion.models import build_denoiser
from motet.policies.diffusion.models.common import DiffusersDenoiser
from motet.policies.diffusion.models.loading import EDITING
from motet.policies.diffusion.pipeline.conditioner import PromptConditioner
from motet.policies.diffusion.pipeline.prompts import check_pipeline
from motet.policies.diffusion.pipeline.saving import save_pipeline
from motet.policies.diffusion.policy import DiffusionPolicy


class PipelinePolicy(DiffusionPolicy):
    """A text-to-image or editing pipeline. Implements `motet.core.protocols.TrainablePolicy`.

    The prompt is the text of the context's last user turn; images in the context are the sources of an edit.
    `height` and `width` are those of generated images, by default the checkpoint's own. `autocast` is the compute
    type of the transformer; None computes in the weights' own. `rollout_batch` images are generated at once; None: all.
    `folder` holds the files that the pipeline was loaded from: components that never change are copied from there.
    """

    def __init__(
        self,
        pipeline: Any,
        denoiser: DiffusersDenoiser | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        autocast: torch.dtype | None = None,
        rollout_batch: int | None = None,
        folder: Path | None = None,
    ) -> None:
        name = type(pipeline).__name__
        check_pipeline(name, str(folder or name))
        denoiser = denoiser or build_denoiser(
            pipeline.transformer, pipeline.vae, pipeline.scheduler, edits=name in EDITING
        )
        _freeze(pipeline)
        self.pipeline, self.denoiser, self.folder = pipeline, denoiser, folder
        self.height, self.width = height or _default_side(pipeline), width or _default_side(pipeline)
        conditioner = PromptConditioner(pipeline, denoiser, self.height, self.width)
        generator = DiffusionGenerator(denoiser, conditioner, self.height, self.width, autocast)
        super().__init__(generator, denoiser.parts, rollout_batch=rollout_batch)
        self.shape = generator.shape

    def save(self, folder: Path) -> None:
        """A complete pipeline folder that diffusers and `open_pipeline` load; see `save_pipeline`."""
        save_pipeline(Path(folder), self.pipeline, self.denoiser, self.folder)


def _freeze(pipeline: Any) -> None:
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False).eval()


def _default_side(pipeline: Any) -> int:
    """Height and width in pixels that the checkpoint was trained for."""
    cells = getattr(pipeline, "default_sample_size", None) or pipeline.transformer.config.sample_size
    return int(cells) * int(pipeline.vae_scale_factor)
