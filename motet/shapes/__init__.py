"""The shapes world: coloured shapes on a small canvas, with prompts, questions and an exact checker. No download, no torch."""
