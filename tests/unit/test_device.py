"""Which device and precision a training gets, and what is said when a wish cannot be met."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from face3d_tune import device
from face3d_tune.device import choose_device, choose_devices, choose_precision, device_names
from face3d_tune.errors import ConfigError
from face3d_tune.system import limits
from face3d_tune.system.limits import Limit

GPUS = torch.device("cuda:0"), torch.device("cuda:1")
CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.fixture
def machine(monkeypatch):
    """Pretend that torch finds these devices."""

    def pretend(*, cuda=False, mps=False, bf16=(CUDA, *GPUS)):  # bf16: the GPUs that have it
        current = []

        @contextmanager
        def chosen(gpu):
            current.append(gpu)
            yield
            current.pop()

        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda: bf16 if isinstance(bf16, bool) else current[-1] in bf16
        )
        monkeypatch.setattr(torch.cuda, "device", chosen)

    return pretend


@pytest.mark.parametrize(
    ("found", "expected"),
    [({}, "cpu"), ({"cuda": True}, "cuda"), ({"mps": True}, "mps"), ({"cuda": True, "mps": True}, "cuda")],
    ids=str,
)
def test_auto_is_the_first_gpu_if_there_is_one(machine, found, expected):
    machine(**found)
    assert choose_device("auto") == torch.device(expected)


def test_a_machine_without_a_gpu_trains_on_its_cpu_in_float32_and_says_nothing(machine):
    machine()
    assert choose_precision("auto", choose_device("auto")) == ("off", None)


def test_the_cpu_can_be_asked_for_on_any_machine(machine):
    machine(cuda=True, mps=True)
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["nonsense", "", "cpu:x", "cuda:99", "gpu", "meta"])
def test_a_device_that_cannot_be_used_is_refused_in_one_line_with_a_way_out(name):
    with pytest.raises(ConfigError) as caught:
        choose_device(name)
    assert caught.value.message.startswith(f"--device {name} cannot be used: ")
    assert "\n" not in caught.value.message
    assert caught.value.hint == "try --device auto"


@pytest.mark.parametrize("error", [RuntimeError, AssertionError, NotImplementedError])
def test_whichever_way_torch_says_that_a_device_is_missing_it_becomes_one_line(monkeypatch, error):
    def refuse(*_, **__):
        raise error("no NVIDIA driver\nlong trace")

    monkeypatch.setattr(torch, "zeros", refuse)
    with pytest.raises(ConfigError, match=r"^--device cuda cannot be used: no NVIDIA driver$"):
        choose_device("cuda")


def test_one_device_is_a_list_of_one(machine):
    machine(mps=True)
    assert choose_devices("auto") == (MPS,)
    assert choose_devices("cpu") == (CPU,)


@pytest.mark.parametrize("text", ["cuda:0,cuda:1", "cuda:0, cuda:1"])
def test_several_gpus_are_each_tried_and_keep_their_order(monkeypatch, text):
    tried = []
    monkeypatch.setattr(torch, "zeros", lambda *_, device: tried.append(device) or SimpleNamespace(item=lambda: 0.0))
    assert choose_devices(text) == GPUS
    assert tried == [*GPUS]


@pytest.mark.parametrize(
    "text", ["cpu,cuda:0", "cuda:0,cpu", "cuda:0,mps", "cuda:0,auto", "cuda,cuda:1", "cuda:0,", "0,1"]
)
def test_several_devices_are_gpus_named_by_their_numbers(text):
    with pytest.raises(
        ConfigError, match=f"^--device {text} cannot be used: '.*' does not have the form cuda:N$"
    ) as caught:
        choose_devices(text)
    assert caught.value.hint == "several devices are GPUs, e.g. --device cuda:0,cuda:1"


def test_a_gpu_is_named_once():
    with pytest.raises(ConfigError, match=r"^--device cuda:1,cuda:0,cuda:1 names cuda:1 twice$"):
        choose_devices("cuda:1,cuda:0,cuda:1")


def test_a_gpu_of_several_that_does_not_exist_is_named(monkeypatch):
    def zeros(*_, device):
        if device.index > 1:
            raise RuntimeError("CUDA error: invalid device ordinal\nCUDA kernel errors might be")
        return SimpleNamespace(item=lambda: 0.0)

    monkeypatch.setattr(torch, "zeros", zeros)
    with pytest.raises(ConfigError, match=r"^--device cuda:7 cannot be used: CUDA error: invalid device ordinal$"):
        choose_devices("cuda:0,cuda:7")


def test_the_names_of_several_gpus_say_each_kind_once(monkeypatch):
    kinds = ["A100", "A100", "L4"]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: kinds[gpu.index])
    assert device_names(GPUS) == "A100"
    assert device_names([*GPUS, torch.device("cuda:2")]) == "A100, L4"


def test_several_gpus_share_one_precision(machine):
    machine(bf16=GPUS)
    assert choose_precision("bf16", *GPUS) == ("bf16", None)
    assert choose_precision("auto", *GPUS) == ("fp16", None)
    machine(bf16=[])
    assert choose_precision("bf16", *GPUS)[0] == "off"
    machine(bf16=GPUS[:1])
    assert choose_precision("fp16", *GPUS) == ("fp16", None)
    with pytest.raises(ConfigError, match=r"^--amp bf16 is supported by only some of the GPUs cuda:0,cuda:1$"):
        choose_precision("bf16", *GPUS)


def test_bf16_is_asked_of_the_gpu_that_trains_and_not_of_the_first(machine):
    machine(bf16=GPUS[1:])
    assert choose_precision("bf16", GPUS[1]) == ("bf16", None)


@pytest.mark.parametrize(
    ("amp", "kind", "precision"),
    [
        ("auto", CUDA, "fp16"),
        ("fp16", CUDA, "fp16"),
        ("bf16", CUDA, "bf16"),
        ("off", CUDA, "off"),
        ("auto", CPU, "off"),
        ("bf16", CPU, "bf16"),
        ("off", CPU, "off"),
        ("auto", MPS, "off"),
        ("off", MPS, "off"),
    ],
)
def test_a_wish_that_can_be_met_is_met_without_a_word(machine, amp, kind, precision):
    machine()
    assert choose_precision(amp, kind) == (precision, None)


@pytest.mark.parametrize(
    ("amp", "kind", "words"),
    [
        ("fp16", CPU, ["fp16 needs CUDA", "float32 on cpu", "--amp bf16"]),
        ("fp16", MPS, ["fp16 needs CUDA", "float32 on mps"]),
        ("bf16", MPS, ["not available on mps", "float32"]),
        ("bf16", CUDA, ["not supported by this GPU", "float32"]),
    ],
)
def test_a_wish_that_cannot_be_met_is_answered_with_float32_and_a_notice(machine, amp, kind, words):
    machine(bf16=[])
    precision, notice = choose_precision(amp, kind)
    assert precision == "off"
    assert [word for word in words if word not in notice] == []


@pytest.mark.parametrize(("cores", "threads"), [(8, 7), (2, 1), (1, 1)])
def test_one_core_is_left_to_others_but_one_thread_always_remains(monkeypatch, cores, threads):
    asked = []
    monkeypatch.setattr(limits, "cores", lambda: Limit(cores, True))
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    device.set_threads(None)
    assert asked == [threads]


@pytest.mark.parametrize(("threads", "name"), [(1, "cpu (1 thread)"), (2, "cpu (2 threads)")])
def test_a_cpu_is_named_with_its_threads(monkeypatch, threads, name):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert device_names([torch.device("cpu")]) == name


def test_a_number_of_threads_that_is_asked_for_is_what_torch_uses(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    device.set_threads(1)
    assert asked == [1]
