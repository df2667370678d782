"""Conversion between DeepSeek's Janus layout and transformers'."""
