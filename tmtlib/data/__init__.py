"""Data: one validated type, readers of the field's files, and a synthetic generator with a known ground truth."""
