"""Diffusion transformers of diffusers, each as a velocity network over plain latents."""

from motet.policies.denoisers.base import Condition, Denoiser
from motet.policies.denoisers.open import denoiser_of, open_denoiser

__all__ = ["Condition", "Denoiser", "denoiser_of", "open_denoiser"]
