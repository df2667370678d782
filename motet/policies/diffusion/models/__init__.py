"""Diffusion transformers of diffusers, each as a velocity network over plain latents."""

from motet.policies.diffusion.models.base import Condition, Denoiser
from motet.policies.diffusion.models.loading import denoiser_of, open_denoiser

__all__ = ["Condition", "Denoiser", "denoiser_of", "open_denoiser"]
