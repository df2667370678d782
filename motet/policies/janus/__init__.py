"""Janus and Janus-Pro: one backbone that writes text tokens and image tokens."""

from motet.policies.janus.policy import JanusPolicy

__all__ = ["JanusPolicy"]
