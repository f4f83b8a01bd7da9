"""Chosen configs trained again: `confirm` and `train`."""
