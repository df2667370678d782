"""The fast sampler: an inference copy of a language model, and one decode loop for text and image tokens."""

from motet.policies.generation.decode_loop import Decoded, Memory, PromptEmbeddings, decode, generate_from_state
from motet.policies.generation.fused_weights import FusedLlama

__all__ = ["Decoded", "FusedLlama", "Memory", "PromptEmbeddings", "decode", "generate_from_state"]
