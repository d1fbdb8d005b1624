"""Weight-shared supernets: elastic slices, training (Algorithm 1), data, checkpoints, inherited accuracy."""
