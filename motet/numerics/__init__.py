"""Pure functions of tensors and floats: log-probs, advantages, losses. No config, no model, no I/O."""
