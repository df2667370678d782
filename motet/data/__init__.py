"""Rows of data as tasks, from a file, a saved dataset, the hub or the shapes world."""

from motet.data.rows import Rows, open_rows, warn_unused_images
from motet.data.sampler import ResumableSampler
from motet.data.sources import WITH_TEST_SPLIT, has_splits, is_file

__all__ = [
    "WITH_TEST_SPLIT",
    "ResumableSampler",
    "Rows",
    "has_splits",
    "is_file",
    "open_rows",
    "warn_unused_images",
]
