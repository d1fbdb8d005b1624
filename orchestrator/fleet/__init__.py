"""Many units of a class of devices, on many hosts, that share one measurement."""
