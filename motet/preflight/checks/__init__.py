"""The checks, by what they look at. Importing this package registers all of them, in the order of the report."""

from motet.preflight.checks import data, prompts, targets, rollouts, replays, rewards, gradients, weights  # noqa: I001  # the order of the report

__all__ = ["data", "gradients", "prompts", "replays", "rewards", "rollouts", "targets", "weights"]
