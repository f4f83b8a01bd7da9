"""The batched engine: many trainings as one program, with the results of `training.plain`."""
