"""Command line, export, device transports, measurement and reports."""
