"""A study: its file, space and settings, and its trials as stored. It decides nothing."""
