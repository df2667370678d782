"""Captions of images: captioning models, and similarity of a caption and a prompt."""
