"""A training loop written out, as in a notebook: python examples/python_api/loop.py"""

from train import ROWS, brevity

import motet

policy = motet.load_policy("checkpoints/shapes_janus")
optimizer = motet.Optimizer(policy, learning_rate=1e-4)
for step in range(5):
    groups = motet.rollout(policy, "answer", ROWS, num_generations=8, sampling={"text": {"max_tokens": 64}})
    scores = motet.score(groups, brevity)
    metrics = motet.update(optimizer, groups, motet.advantages(groups, scores))
    print(f"step {step + 1}: reward {scores.metrics['reward']:.3f}, gradient norm {metrics['grad_norm']:.2f}")
