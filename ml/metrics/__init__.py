"""IoU of label maps and masks, its resampling, and the two protocols."""
