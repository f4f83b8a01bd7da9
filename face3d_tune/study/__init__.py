"""What a study is: its file, space and settings, and its trials as stored. It decides nothing."""
