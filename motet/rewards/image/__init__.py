"""Rewards of images: detectors, CLIP, similarity, compression."""
