"""The faster engine: the trainings of `face3d_tune.trainer`, many at once, without any work that changes nothing."""

from face3d_tune.engine.batch import Batch, Data, Member, alone, structure

__all__ = ["Batch", "Data", "Member", "alone", "structure"]
