"""What the training of every system shares: loop, configuration, checkpoints, seeds, averages."""
