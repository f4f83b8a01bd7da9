"""Which device and precision a training gets, and what is said when a wish cannot be met."""

import pytest
import torch

from face3d_tune import device
from face3d_tune.device import choose_device, choose_precision
from face3d_tune.errors import ConfigError

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.fixture
def machine(monkeypatch):
    """Pretend that torch finds these devices."""

    def pretend(*, cuda=False, mps=False, bf16=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: bf16)

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
    machine(bf16=False)
    precision, notice = choose_precision(amp, kind)
    assert precision == "off"
    assert [word for word in words if word not in notice] == []


@pytest.mark.parametrize(("cores", "threads"), [(8, 7), (2, 1), (1, 1), (None, 1)])
def test_one_core_is_left_to_others_but_one_thread_always_remains(monkeypatch, cores, threads):
    asked = []
    monkeypatch.setattr(device.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    device.set_threads(None)
    assert asked == [threads]


def test_a_number_of_threads_that_is_asked_for_is_what_torch_uses(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    device.set_threads(1)
    assert asked == [1]
