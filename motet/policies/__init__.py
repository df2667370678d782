"""Models that act. `load_policy` opens a checkpoint of any supported class."""

from motet.policies.loading import load_policy

__all__ = ["load_policy"]
