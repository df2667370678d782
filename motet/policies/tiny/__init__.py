"""Tiny checkpoints of the real classes, for tests and small experiments."""
