"""Image generation with a diffusers pipeline: frozen text encoders, and a transformer that trains."""

from motet.policies.diffusion.pipeline.checkpoint import open_pipeline
from motet.policies.diffusion.pipeline.conditioner import PipelineEncoding
from motet.policies.diffusion.pipeline.policy import PipelinePolicy

__all__ = ["PipelineEncoding", "PipelinePolicy", "open_pipeline"]
