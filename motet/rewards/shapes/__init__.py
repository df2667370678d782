"""Rewards of the shapes world, checked exactly."""
