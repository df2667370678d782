"""Emu3: one language model whose vocabulary holds text tokens and image tokens (arXiv 2409.18869)."""

from motet.policies.emu3.policy import Emu3Policy

__all__ = ["Emu3Policy"]
