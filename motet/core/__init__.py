"""What everything else speaks of: tasks, conversations, acts, trajectories, protocols, the registry, errors."""
