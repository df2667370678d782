"""A unified model: a language model whose hidden states condition a diffusion transformer."""

from motet.policies.unified.policy import UnifiedPolicy

__all__ = ["UnifiedPolicy"]
