"""The user attributes of studies and trials: each key once."""

CONFIRMATION = "confirmation"  # user attribute of a study
