"""Image generation by denoising: what every policy with a diffusion transformer shares."""

from motet.policies.diffusion.generator import Conditioner, DiffusionGenerator
from motet.policies.diffusion.guidance import GuidanceBranches, guidance_branches
from motet.policies.diffusion.replay import make_flow_matching_pairs, renoise, replay_log_probs
from motet.policies.diffusion.sampling import sample_latents

__all__ = [
    "Conditioner",
    "DiffusionGenerator",
    "GuidanceBranches",
    "guidance_branches",
    "make_flow_matching_pairs",
    "renoise",
    "replay_log_probs",
    "sample_latents",
]
