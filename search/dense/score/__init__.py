"""mAP and mIoU."""
