"""The search: which trial comes next, and when to stop."""
