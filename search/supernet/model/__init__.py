"""The weight-shared module: elastic layers and their slices."""
