"""Drawing with a whole diffusers pipeline: its frozen text encoders, and its transformer as what acts and learns."""

from motet.policies.diffusion.pipeline.checkpoint import open_pipeline
from motet.policies.diffusion.pipeline.conditioner import PipelineEncoding
from motet.policies.diffusion.pipeline.policy import PipelinePolicy

__all__ = ["PipelineEncoding", "PipelinePolicy", "open_pipeline"]
