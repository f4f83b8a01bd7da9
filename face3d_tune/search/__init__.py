"""The search: what it tries next, and when it stops."""
