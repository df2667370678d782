"""Rows of data as tasks, from a file, a saved dataset, the hub or the shapes world."""

from motet.data.cursor import Cursor
from motet.data.rows import Rows, open_rows

__all__ = ["Cursor", "Rows", "open_rows"]
