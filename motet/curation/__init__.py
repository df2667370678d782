"""Pair questions with captions that cover their solutions: how CoRL's training data was built."""

from motet.curation.files import read_captions, read_questions, write_rows
from motet.curation.pairing import Curated, CurationQuestion, curate

__all__ = ["Curated", "CurationQuestion", "curate", "read_captions", "read_questions", "write_rows"]
