"""Drawing with a whole diffusers pipeline: its frozen text encoders, and its transformer as what acts and learns."""

from motet.policies.pipelines.checkpoint import open_pipeline
from motet.policies.pipelines.policy import DrawingEncoding, PipelinePolicy

__all__ = ["DrawingEncoding", "PipelinePolicy", "open_pipeline"]
