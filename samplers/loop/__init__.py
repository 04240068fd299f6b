"""The denoise loop of the masked and the block family, and what the drivers of all families share."""
