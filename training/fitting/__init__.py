"""Training: the network before step one, the loop, its batches and its checkpoints."""
