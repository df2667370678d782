"""The fast sampler: an inference copy of a language model, and one decode loop for text and image tokens."""

from motet.policies.generation.decode_loop import Decoded, Memory, Prefixes, continue_sequences, decode
from motet.policies.generation.fused_weights import LanguageSnapshot

__all__ = ["Decoded", "LanguageSnapshot", "Memory", "Prefixes", "continue_sequences", "decode"]
