"""Training: a split on the device, and `fit`."""
