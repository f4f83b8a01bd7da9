"""A task that begins again without the mixed precision that led to NaN."""

from dataclasses import replace

import pytest

from face3d_tune.config import TrialConfig
from face3d_tune.executor.tasks import Task
from face3d_tune.training.base import precision_for

CONFIG = TrialConfig(d_model=16, dim_feedforward=64, use_mixed_precision=True)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_what_mixed_precision_led_to_nan_begins_again_without(precision):
    task = Task(3, CONFIG, 7, precision, "trial-3", retry=True, fold=2, folds=3)
    again = task.without_mixed_precision()
    assert again == replace(task, precision="off", retry=False)
    assert again.without_mixed_precision() is None


def test_only_a_config_that_uses_mixed_precision_trains_in_it():
    assert precision_for(CONFIG, "bf16") == "bf16"
    assert precision_for(replace(CONFIG, use_mixed_precision=False), "bf16") == "off"
