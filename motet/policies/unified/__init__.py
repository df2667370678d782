"""A unified model of two experts: a vision-language model whose learned queries condition a diffusion transformer."""

from motet.policies.unified.policy import UnifiedPolicy

__all__ = ["UnifiedPolicy"]
