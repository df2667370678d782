"""Measurements: held-back suites and benchmarks. They play and score, and never learn."""
