"""A folder that predicts frontal embeddings without this package."""
