"""Memory and time of a training step before it is launched: arithmetic over a recipe, a model's config and a device."""
