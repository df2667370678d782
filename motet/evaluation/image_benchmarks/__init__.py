"""Benchmarks of image generation: GenEval, DPG-Bench and WISE."""
