"""Diffusion transformers of diffusers, each as a velocity network over plain latents."""

from motet.policies.diffusion.models.base import Condition, Denoiser
from motet.policies.diffusion.models.loading import build_denoiser, open_denoiser

__all__ = ["Condition", "Denoiser", "build_denoiser", "open_denoiser"]
