"""Published reward models: human preference, alignment with a prompt, aesthetics and quality of images."""
