"""The users' own training script: its flags, commands for it, its earlier runs."""
