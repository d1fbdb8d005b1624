"""A search's best: chosen by measurement, exported, described, fed back into its LUT."""
