"""IoU of label maps and masks, its resampling, and Protocol I."""
