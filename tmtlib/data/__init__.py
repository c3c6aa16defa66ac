"""Data: one validated type, readers for the field's files, and a planted generator with known truth."""
