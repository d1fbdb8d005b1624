"""Images with boxes and masks, of COCO's and VOC's files."""
