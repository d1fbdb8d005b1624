"""Training a network with a head of detection or segmentation."""
