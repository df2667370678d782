"""Experiments: single runs with evaluation before and after, stages initialised from each other, sweeps, benchmarks."""
