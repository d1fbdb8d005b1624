"""Top-1 and top-5 of classifiers as they run: exported programs, and PyTorch beside them."""
