"""The core types: tasks, conversations, acts, trajectories, protocols, the registry, errors."""
