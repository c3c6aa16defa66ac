"""What is trained, kept, tabled and run: methods, profiles, runs and their records, the notebook series."""
