"""optuna-dashboard with what a study of ours shows, and safe by default."""
