"""The shapes world: coloured shapes, prompts, questions and an exact verifier. No download, no torch."""
