"""Self-contained HTML reports of a LUT or of a whole run, pictures first."""
