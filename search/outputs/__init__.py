"""From a network's raw outputs to boxes and masks, outside of the exported model."""
