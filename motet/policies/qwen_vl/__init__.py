"""Qwen2.5-VL and Qwen3-VL: language models with image input."""

from motet.policies.qwen_vl.policy import VlmPolicy

__all__ = ["VlmPolicy"]
