"""Training (Algorithm 1): steps, checkpoints, teachers, several processes."""
