"""Merging checkpoints: several folders and the one they were trained from -> one folder."""

from motet.weights.merge import METHODS, Merged, merge_folders

__all__ = ["METHODS", "Merged", "merge_folders"]
