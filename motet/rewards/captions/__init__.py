"""Captions of images: who writes them, and how close they come to a prompt."""
