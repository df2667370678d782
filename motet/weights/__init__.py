"""Weights on disk: locating, downloading, reading, writing and merging checkpoints. Imports no torch."""
