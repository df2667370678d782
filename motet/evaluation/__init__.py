"""Evaluation suites on validation data, and benchmarks. Nothing here trains a policy."""
