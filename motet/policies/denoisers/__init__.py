"""Diffusion transformers of diffusers, each as a velocity network over plain latents."""

from motet.policies.denoisers.base import Condition, Denoiser

__all__ = ["Condition", "Denoiser"]
