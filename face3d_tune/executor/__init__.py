"""Where trainings run: slots in this process and in others. It knows no Optuna and no database."""
