"""Which engine, and how many trainings at once: what is asked for, or what cores, memory and models allow."""

from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch

from face3d_tune.config import TrialConfig
from face3d_tune.errors import ConfigError
from face3d_tune.executor import plan, processes
from face3d_tune.executor.child import Share
from face3d_tune.executor.plan import choose
from face3d_tune.executor.slots import PlainSlot
from face3d_tune.study import study_file
from face3d_tune.system import limits
from face3d_tune.training.model import Model

GPUS = torch.device("cuda:0"), torch.device("cuda:1")
CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
GIB = 2**30
SMALL = TrialConfig(d_model=16, dim_feedforward=32, nhead=2, num_layers=1)
LARGE = replace(SMALL, d_model=2048, dim_feedforward=8192, num_layers=6)


@pytest.fixture
def machine(monkeypatch):
    """Pretend to have this many cores and so much free memory."""

    def pretend(*, cores=4, memory=64 * GIB, gpu=64 * GIB, quota=None, limit=None):
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=memory))
        affinity = SimpleNamespace(cpu_affinity=lambda: list(range(cores)))
        monkeypatch.setattr(psutil, "Process", lambda *_: affinity)
        monkeypatch.setattr(limits, "_cpu_quotas", lambda: [] if quota is None else [quota])
        monkeypatch.setattr(limits, "_free_in_cgroups", lambda: [] if limit is None else [limit])
        on_gpus = [gpu] if isinstance(gpu, int) else gpu  # free on each
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda each: (on_gpus[each.index or 0], 2**50))

    pretend()
    return pretend


def slots(data, *, device=CPU, config=SMALL, engine="auto", asked=None):
    chosen = choose(engine, asked, [device], data, [config])
    assert chosen.engine == "batched"
    return chosen.slots


@pytest.mark.parametrize("cores", [1, 2, 7, 64])
@pytest.mark.parametrize("engine", ["auto", "batched"])
def test_a_cpu_trains_as_many_small_models_as_it_has_cores(machine, data, cores, engine):
    machine(cores=cores)
    assert slots(data, engine=engine) == cores


def test_the_cores_of_a_system_that_knows_no_affinity_are_counted(machine, data, monkeypatch):
    monkeypatch.setattr(psutil, "Process", lambda *_: SimpleNamespace())
    monkeypatch.setattr(psutil, "cpu_count", lambda: 5)
    assert slots(data) == 5
    monkeypatch.setattr(psutil, "cpu_count", lambda: None)
    assert slots(data) == 1


def test_little_memory_allows_fewer_trainings_than_cores_but_always_one(machine, data):
    found = []
    for memory in (64, 3, 2, 1, 0.1):
        machine(cores=8, memory=int(memory * GIB))
        found.append(slots(data))
    assert found[0] == 8
    assert found == sorted(found, reverse=True)
    assert 1 <= found[2] < 8
    assert found[-2:] == [1, 1]


def test_a_process_holds_the_pairs_once_for_every_fold(machine, data):
    """They are 72 pairs of 40 KB here; so many folds as nobody has take as much as a model."""
    machine(cores=8, memory=8 * GIB)
    assert choose("auto", None, [CPU], data, [SMALL]).slots == 8
    assert 1 < choose("auto", None, [CPU], data, [SMALL], folds=20_000).slots < 8


def test_what_all_trainings_take_together_is_less_than_what_is_free(machine, data):
    weights = 6 * (2 * 4 * 2048**2 + 2 * 2048 * 8192)  # of two attentions and two linear layers, six times
    for device in (CPU, CUDA):
        machine(cores=64, memory=48 * GIB, gpu=48 * GIB)
        count = slots(data, device=device, config=LARGE)
        # weights, gradients and the two moments of AdamW, 4 bytes each, are the least that a training needs
        assert 1 < count * weights * 4 * 4 < 48 * GIB


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_the_largest_model_of_the_search_decides(machine, data, device):
    machine(cores=16, memory=60 * GIB, gpu=60 * GIB)
    found = [slots(data, device=device, config=replace(LARGE, num_layers=layers)) for layers in (1, 3, 6, 12)]
    assert found == sorted(set(found), reverse=True)
    both = choose("auto", None, [device], data, [SMALL, replace(LARGE, num_layers=6), SMALL])
    assert both.slots == found[2]


@pytest.mark.parametrize("name", ["view_mixing", "feature_noise", "pose_jitter", "landmark_noise"])
def test_a_training_that_augments_needs_room_for_the_views_of_an_epoch(machine, data, name):
    for config, fewer in ((SMALL, False), (replace(SMALL, **{name: 0.5}), True)):
        need = plan._parameters(config, data.feature_size) * 4 * plan._COPIES
        machine(gpu=int((8 * need) / plan._SHARE) + 2 * plan._bytes(data))
        assert (slots(data, device=CUDA, config=config) < 8) is fewer


def test_a_gpu_trains_at_most_16_at_once_and_fewer_if_it_is_small(machine, data):
    assert slots(data, device=CUDA) == 16
    machine(gpu=4 * 2**20)
    assert 1 <= slots(data, device=CUDA) < 16
    machine(gpu=1)
    assert slots(data, device=CUDA) == 1


@pytest.mark.parametrize("device", [CPU, CUDA, MPS], ids=str)
@pytest.mark.parametrize("asked", [1, 3, 99])
def test_slots_that_are_asked_for_win(machine, data, device, asked):
    machine(cores=2, memory=1, gpu=1)
    assert slots(data, device=device, config=LARGE, asked=asked, engine="batched") == asked


def test_a_device_that_the_batched_engine_has_not_been_tried_on_gets_the_plain_one(machine, data):
    chosen = choose("auto", None, [MPS], data, [SMALL])
    assert (chosen.engine, chosen.slots) == ("plain", 1)
    assert str(chosen) == "plain, one trial after another (the batched engine has not been tried on mps)"
    assert slots(data, device=MPS, engine="batched") == 1  # unless somebody insists


@pytest.mark.parametrize("asked", [None, 1])
def test_the_plain_engine_trains_one_trial_at_a_time(data, asked):
    chosen = choose("plain", asked, [CPU], data, [SMALL])
    assert (chosen.engine, chosen.slots) == ("plain", 1)
    assert str(chosen) == "plain, one trial after another (--engine plain)"
    assert isinstance(chosen.open(data), PlainSlot)


@pytest.mark.parametrize("engine", ["plain", "batched"])
@pytest.mark.parametrize("device", [CPU, MPS, CUDA], ids=str)
def test_with_a_timeout_each_engine_trains_in_a_process_that_can_be_ended(data, monkeypatch, engine, device):
    opened = []
    monkeypatch.setattr(processes, "_Child", lambda *arguments: opened.append(arguments))
    chosen = choose(engine, 1, [device], data, [SMALL])
    assert chosen.open(data, timeout=30.0).engine == engine
    assert opened == [(Share(device, 1, engine), data, None, 30.0)]


@pytest.mark.parametrize(
    ("engine", "device"), [("plain", CPU), ("plain", CUDA), ("auto", torch.device("mps"))], ids=str
)
def test_the_plain_engine_has_no_more_slots(data, engine, device):
    with pytest.raises(ConfigError, match="--slots 2 needs --engine batched: the plain engine trains one trial"):
        choose(engine, 2, [device], data, [SMALL])


def test_several_gpus_have_a_process_each_with_the_slots_that_its_own_memory_allows(machine, data):
    need = plan._parameters(LARGE, data.feature_size) * 4 * plan._COPIES
    machine(gpu=[int(3.5 * need / plan._SHARE), int(20.5 * need / plan._SHARE)])
    chosen = choose("auto", None, GPUS, data, [LARGE])
    assert chosen.shares == (Share(GPUS[0], 3), Share(GPUS[1], 16))
    assert (chosen.slots, chosen.device, chosen.devices) == (19, GPUS[0], GPUS)
    one = [choose("auto", None, [gpu], data, [LARGE]) for gpu in GPUS]
    assert [each.slots for each in one] == [3, 16]
    assert [each.devices for each in one] == [(gpu,) for gpu in GPUS]


def test_a_full_gpu_of_several_still_trains_one(machine, data):
    machine(gpu=[1, 64 * GIB])
    assert [share.slots for share in choose("auto", None, GPUS, data, [SMALL]).shares] == [1, 16]


@pytest.mark.parametrize(("asked", "divided"), [(2, [1, 1]), (5, [3, 2]), (40, [20, 20])])
def test_slots_that_are_asked_for_are_divided_among_the_gpus(machine, data, asked, divided):
    chosen = choose("batched", asked, GPUS, data, [LARGE])
    assert [(share.device, share.slots) for share in chosen.shares] == list(zip(GPUS, divided, strict=True))


def test_fewer_slots_than_gpus_are_refused(data):
    with pytest.raises(ConfigError, match="--slots 1 is too few for the 2 GPUs of --device") as caught:
        choose("auto", 1, GPUS, data, [SMALL])
    assert caught.value.hint == "set --slots to at least 2, or name fewer GPUs"


def test_the_plain_engine_trains_on_one_gpu(data):
    with pytest.raises(ConfigError, match="--device names 2 GPUs; the plain engine trains one trial at a time, on one"):
        choose("plain", None, GPUS, data, [SMALL])


def test_a_plan_for_fewer_trainings_starts_no_process_for_nothing(machine, data):
    machine(cores=4, gpu=[64 * GIB, 64 * GIB])
    on_cpu, on_gpus = (choose("auto", None, devices, data, [SMALL]) for devices in ([CPU], GPUS))
    assert on_cpu.at_most(3).shares == (Share(CPU, 1),) * 3
    assert on_cpu.at_most(9) == on_cpu
    assert [share.slots for share in on_gpus.at_most(5).shares] == [3, 2]
    assert on_gpus.at_most(1).shares == (Share(GPUS[0], 1),)
    uneven = replace(on_gpus, shares=(Share(GPUS[0], 1), Share(GPUS[1], 16)))
    assert [share.slots for share in uneven.at_most(6).shares] == [1, 5]
    assert choose("plain", None, [CPU], data, [SMALL]).at_most(3).slots == 1


def test_a_plan_for_several_gpus_says_how_the_slots_are_divided(machine, data):
    machine(gpu=[40 * GIB, 38 * GIB])
    assert str(choose("auto", None, GPUS, data, [SMALL])).startswith(
        "batched, 32 at once in a process for each of 2 GPUs, 16+16 (40+38 GiB free on the GPUs, models of up to 0.0 "
    )
    assert str(choose("auto", 5, GPUS, data, [])) == (
        "batched, 5 at once in a process for each of 2 GPUs, 3+2 (--slots 5)"
    )


def test_a_plan_says_what_was_chosen_and_why(machine, data):
    machine(cores=4, memory=24 * GIB, gpu=40 * GIB)
    one_million = replace(SMALL, d_model=256, dim_feedforward=1024)
    on_cpu, on_gpu = (str(choose("auto", None, [device], data, [one_million])) for device in (CPU, CUDA))
    assert on_cpu.startswith("batched, 4 at once in as many processes of one thread (4 cores, 24 GiB free, models of")
    assert on_gpu.startswith("batched, 16 at once in one process (40 GiB free on the GPU, models of up to ")
    assert on_cpu.endswith(" million parameters)")
    assert str(choose("auto", 3, [CPU], data, [])) == (
        "batched, 3 at once in as many processes of one thread (--slots 3)"
    )


def test_a_plan_says_when_a_container_allows_less_than_the_machine_has(machine, data):
    machine(cores=64, memory=256 * GIB, quota=2.5, limit=8 * GIB)
    chosen = choose("auto", None, [CPU], data, [SMALL])
    assert chosen.slots == 2
    assert "(2 cores by CPU quota, 8 GiB free by memory limit, models of up to" in str(chosen)
    machine(cores=64, memory=256 * GIB, limit=2 * GIB)
    assert 1 < choose("auto", None, [CPU], data, [SMALL]).slots < 8


def test_the_size_of_a_model_is_estimated_from_above_but_not_by_far(data):
    for config in (
        replace(SMALL, d_model=512, dim_feedforward=2048, num_layers=3, use_pose_attention=True),
        replace(SMALL, d_model=256, dim_feedforward=1024, use_spatial_attention=True),
    ):
        weights = sum(each.numel() for each in Model(config, data.feature_size, torch.Generator()).parameters())
        assert 0.7 < plan._parameters(config, data.feature_size) / weights < 1.3


def test_the_largest_corner_of_a_study_file_is_among_those_that_decide(tmp_path):
    path = tmp_path / "wide.toml"
    path.write_text(
        "[fixed]\nnhead = 2\n[space]\nwidth = [0.5, 2.0, 1.0]\nnum_layers = { low = 1, high = 5 }\n"
        "[presets.deep]\nnum_layers = 3\ndim_feedforward = 999\n",
        encoding="utf-8",
    )
    configs = study_file.read(str(path)).bind("keypoint", 16, 100).extreme_configs()
    assert max((config.d_model, config.num_layers) for config in configs)[0] == 32
    assert max(config.num_layers for config in configs) == 5
    assert max(config.dim_feedforward for config in configs) == 999
