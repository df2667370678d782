"""The fast sampler: an inference copy of a language model, and one decode loop for text and image tokens."""

from motet.policies.generation.decode_loop import Decoded, DecodingState, PromptEmbeddings, decode, generate_from_state
from motet.policies.generation.fused_weights import FusedLlama

__all__ = ["Decoded", "DecodingState", "FusedLlama", "PromptEmbeddings", "decode", "generate_from_state"]
