"""Where studies and checkpoints lie unless a person says otherwise. Imports nothing heavy: every `--help` loads it."""

DEFAULT_STORAGE = "sqlite:///face3d_tune.db"
STORAGE_VARIABLE = "FACE3D_TUNE_STORAGE"
DEFAULT_ARTIFACTS = "face3d_tune_artifacts"
ARTIFACTS_VARIABLE = "FACE3D_TUNE_ARTIFACTS"
NO_ARTIFACTS = "none"  # keeps no checkpoints
