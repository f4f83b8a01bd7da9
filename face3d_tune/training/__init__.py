"""One training: model, losses, schedules, and both engines. It knows no Optuna and no database."""
