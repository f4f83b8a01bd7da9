"""What the search tries next, and when it stops."""
