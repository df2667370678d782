"""Models that act. `load_policy` opens a checkpoint of any supported class."""

from motet.policies.load import load_policy

__all__ = ["load_policy"]
