"""Detection and segmentation: images with boxes and masks, losses, figures, training of one network."""
