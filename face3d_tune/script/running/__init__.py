"""A user's script in training; no Optuna, no database."""
