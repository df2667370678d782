"""Runs from beginning to end, and plans: several runs in an order, each going on from what others have left."""
