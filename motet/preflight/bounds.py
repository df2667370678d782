"""How far replayed log-probs may be from the sampled ones before the weights move. Imports no torch.

In float32 rounding makes some 1e-5 nats; on a tiny Janus in bfloat16 the mean is 0.001 unguided and 0.024 at guidance
5, where 4 % of the ratios are outside [0.8, 1.2] (docs/algorithms.md). The run itself ends above 0.1 in the mean
(`motet.training.rollout_gate`).
"""

FLOAT32_MEAN, FLOAT32_SINGLE = 1e-3, 0.02
"""Nats in float32: in the mean over the actions of a kind of act, and for a single action."""
ROUNDED_MEAN, ROUNDED_SINGLE = 0.05, 1.0
"""The same where sampling or training rounds to bfloat16; more is a warning."""
ROUNDED_OUTSIDE = 0.1
"""Share of ratios outside [0.8, 1.2] there."""
