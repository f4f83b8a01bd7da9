"""Hyperparameter search for the Transformer that turns a side-view face embedding into the frontal one."""

__version__ = "0.1.0"
