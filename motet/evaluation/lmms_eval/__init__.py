"""motet in lmms-eval: a model `motet` of that harness, tasks of its own, and its tasks as evaluation suites.

lmms-eval (https://github.com/EvolvingLMMs-Lab/lmms-eval) has the tasks of published understanding benchmarks.
"""
