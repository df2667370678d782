"""Pure functions of tensors and floats: log-probs, advantages, KL, flows, statistics. No config, no model, no I/O."""
