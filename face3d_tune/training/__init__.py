"""One training: model, losses, schedules and both engines. No Optuna and no database."""
