"""The real optuna-dashboard with what a study of ours shows, and safe by default."""

from face3d_tune.dashboard.guard import HEALTH, is_loopback
from face3d_tune.dashboard.server import make_dashboard

__all__ = ["HEALTH", "is_loopback", "make_dashboard"]
