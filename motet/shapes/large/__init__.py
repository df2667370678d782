"""The large shapes world: more words, longer prompts and questions, and words that only one ability is trained on."""
