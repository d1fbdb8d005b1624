"""A space and its LUTs as arrays: what millions of architectures cost."""
