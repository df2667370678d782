"""Many processes as one run: the same loop in every process, gradients shared, or weights sharded."""
