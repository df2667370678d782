"""Text in images: prompts that quote a three-letter word, with images of it."""
