"""From a module to a runtime's file: rewrites, partitioning, quantization, and the check that outputs are kept."""
