"""Data: one validated type, readers for the field's files, and a synthetic generator with known truth."""
