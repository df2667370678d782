"""Weights on disk: finding, downloading, reading and writing them, and merging checkpoints. Imports no torch."""
