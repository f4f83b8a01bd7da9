"""The user attributes of studies and trials: each key stands here once."""

CONFIRMATION = "confirmation"  # user attribute of a study
