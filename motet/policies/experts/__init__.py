"""Two experts side by side: a language model that rewrites prompts, and a diffusion pipeline that draws them."""

from motet.policies.experts.policy import ExpertsPolicy

__all__ = ["ExpertsPolicy"]
