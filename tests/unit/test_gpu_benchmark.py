"""`benchmarks/gpu.py`, tried on a CPU with tiny sizes: what it proves, what it notices, and what it writes."""

import json
import math
import time
from dataclasses import replace
from unittest import mock

import pytest
import torch

from benchmarks import gpu
from face3d_tune.config import TrialConfig
from face3d_tune.training.batched.batch import Batch

CPU = torch.device("cpu")
BASE = TrialConfig(d_model=16, dim_feedforward=32, nhead=2, num_layers=1, batch_size=8, dropout=0.1)
STUDY = """
[study]
presets = ["baseline"]
[budget]
trials = 1
epochs = 1
[sampler]
name = "random"
[fixed]
batch_size = 8
nhead = 2
num_layers = 1
d_model = 16
dim_feedforward = 32
[space]
lr = { low = 1e-4, high = 1e-3, scale = "log" }
"""


def test_both_engines_are_equal_in_every_precision_that_the_device_has(few_people):
    found = gpu.equality(few_people, CPU, BASE, epochs=2)

    assert found["ok"]
    assert found["float64"]["largest_difference"] <= 1e-9
    assert found["fp32"]["largest_difference"] <= 1e-4
    assert found["fp16"] == {"skipped": "--amp fp16 needs CUDA; training in float32 on cpu (a CPU can do --amp bf16)"}
    assert 0 < found["bf16"]["effect_of_the_precision"] < 0.1  # so that bf16 was really used


def test_an_engine_that_computes_something_else_would_be_noticed(few_people):
    add = Batch.add

    def faster(self, config, *arguments):
        return add(self, replace(config, lr=1.01 * config.lr), *arguments)

    with mock.patch.object(Batch, "add", faster):
        found = gpu.equality(few_people, CPU, BASE, epochs=2)
    assert not found["ok"]
    assert found["float64"]["largest_difference"] > 1e-6


def test_trainings_that_run_out_of_memory_go_on_fewer_at_once(few_people):
    found = gpu.memory(few_people, CPU, BASE, count=4, epochs=2)
    assert (found["at_once_before"], found["at_once_after"], found["halved"], found["failed"]) == (4, 2, True, [])
    assert (found["ok"], found["simulated"]) == (True, True)
    assert found["largest_difference"] <= 1e-6


def test_memory_that_never_ran_out_proves_nothing(few_people):
    with mock.patch.object(gpu, "too_many", return_value=gpu.nothing_cut()):
        assert not gpu.memory(few_people, CPU, BASE, count=2, epochs=2)["ok"]


def test_steps_are_counted_for_all_models_of_a_batch(data):
    found = gpu.speeds(data, CPU, (1, 2), window=0.05, deadline=math.inf)
    assert (found["ok"], found["d"]) == (True, 16)
    for count in ("1", "2"):
        assert found[count]["against_plain"] == pytest.approx(found[count]["steps_per_second"] / found["plain"])
    with mock.patch.object(time, "perf_counter", iter([0.0, 1.0, 2.0, 2.0]).__next__):
        assert gpu.per_second(lambda: None, steps=30, window=1.5) == 2 * 30 / 2.0  # two epochs in two seconds


def test_a_batch_that_does_not_fit_is_named_and_the_others_are_measured(data):
    engine = gpu.engine

    def small(*arguments, models, **named):
        if models > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return engine(*arguments, models=models, **named)

    with mock.patch.object(gpu, "engine", small):
        found = gpu.speeds(data, CPU, (2, 1), window=0.01, deadline=math.inf)
    assert found["2"] == {"skipped": "CUDA out of memory. Tried to allocate 2 GiB"}
    assert found["1"]["steps_per_second"] > 0
    assert gpu.speeds(data, CPU, (1,), window=0.01, deadline=0)["1"] == {"skipped": "no time left"}


def test_a_whole_run_ends_with_the_weights_of_its_best_trial(tmp_path, data_folder):
    path = tmp_path / "tiny.toml"
    path.write_text(STUDY, encoding="utf-8")
    sizes = replace(gpu.TINY, trials=1)
    found = gpu.whole_run("cpu", sizes, study=path, data_dir=data_folder, engine="plain")
    assert (found["finished"], found["epochs"], found["failed"], found["ok"]) == (1, 1, 0, True)
    assert found["engine"].startswith("engine: plain, ")


def test_each_part_is_written_when_it_has_ended_and_an_error_ends_no_other(tmp_path, capsys):
    out = tmp_path / "gpu.json"
    seen = []

    def fail():
        seen.append(json.loads(out.read_text()))
        raise RuntimeError("device-side assert")

    parts = {"first": lambda: {"ok": True}, "second": fail, "third": lambda: {"ok": True}}
    assert not gpu.measure(out, {"device": "a GPU"}, parts, time.monotonic() + 60)
    assert list(seen[0]["parts"]) == ["first"]
    written = json.loads(out.read_text())
    assert written["device"] == "a GPU"
    assert written["parts"]["second"]["error"] == "RuntimeError: device-side assert"
    assert [part["ok"] for part in written["parts"].values()] == [True, False, True]

    assert gpu.measure(out, {}, {"first": parts["first"]}, time.monotonic() + 60)
    assert not gpu.measure(out, {}, {"first": parts["first"]}, deadline=0)
    assert json.loads(out.read_text())["parts"]["first"] == {"skipped": "no time left", "ok": False}
    assert "device-side assert" in capsys.readouterr().err


def test_without_a_gpu_the_command_says_that_it_measures_nothing(monkeypatch):
    monkeypatch.setattr("sys.argv", ["gpu"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device here: nothing is measured"):
        gpu.main()
