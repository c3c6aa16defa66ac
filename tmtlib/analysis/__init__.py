"""One question, one file, asked of finished runs."""
