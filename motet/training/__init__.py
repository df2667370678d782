"""Training: set up a run, roll out, assign advantages, take optimizer steps, log and save."""
