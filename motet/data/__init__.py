"""Rows of data as tasks, from a file, a saved dataset, the hub or the shapes world."""

from motet.data.rows import Rows, note_unseen_pictures, open_rows
from motet.data.sampler import Cursor
from motet.data.sources import is_file

__all__ = ["Cursor", "Rows", "is_file", "note_unseen_pictures", "open_rows"]
