"""Captions of pictures: who writes them, and how close they come to a prompt."""
