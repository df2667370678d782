"""The fast sampler: an inference copy of a language model, and one decode loop for text and image tokens."""

from motet.policies.decoding.loop import Decoded, Memory, Prefixes, continue_sequences, decode
from motet.policies.decoding.snapshot import LanguageSnapshot

__all__ = ["Decoded", "LanguageSnapshot", "Memory", "Prefixes", "continue_sequences", "decode"]
