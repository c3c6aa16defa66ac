"""Training: a split on the device, seeds alone or stacked, and `fit`."""
