"""Slots where trainings run, in this process and in others. No Optuna and no database."""
