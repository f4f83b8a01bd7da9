"""optuna-dashboard with the findings of our studies, and safe by default."""
