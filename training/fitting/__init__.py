"""Training: initial weights, the loop, batches and checkpoints."""
