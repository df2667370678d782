"""Pairs of a question and a caption that covers its solution: how CoRL's training data came about."""

from motet.curation.files import read_captions, read_questions, write_rows
from motet.curation.pairing import Curated, Question, curate

__all__ = ["Curated", "Question", "curate", "read_captions", "read_questions", "write_rows"]
