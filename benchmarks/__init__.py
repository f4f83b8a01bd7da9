"""Measurements of speed; see README.md in this folder."""
