"""Rewards from a model that looks at images or reads answers: VQA, cycles, LLM judges."""
