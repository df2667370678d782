"""The shapes world: coloured shapes, prompts, questions and an exact checker. No download, no torch."""
