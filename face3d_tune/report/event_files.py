"""The trials of a study as event files, which TensorBoard shows: one run a trial. Written without TensorBoard.

`script.running.event_file` reads such files and names the formats. The hyperparameters of a run are in the form of
TensorBoard's plugin `hparams`
(https://github.com/tensorflow/tensorboard/blob/master/tensorboard/plugins/hparams/plugin_data.proto, with api.proto
beside it).
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any

from face3d_tune.script.running.event_file import masked
from face3d_tune.study.causes import QUEUED_AGAIN
from face3d_tune.study.objective import Objective
from face3d_tune.study.records import Trial

_VERSION = b"brain.Event:2"
_SUCCESS, _FAILURE, _RUNNING = 1, 2, 3  # Status of api.proto
_STATUS = {"fail": _FAILURE, "running": _RUNNING, "waiting": _RUNNING}


def event_files(trials: Sequence[Trial], objective: Objective) -> dict[str, bytes]:
    """Return an event file for each trial that has trained an epoch, by its path within the folder.

    A trial that was queued again is omitted: its successor has its epochs.

    Each has the trial's curves as scalars, at the steps 1, 2, … of its epochs, and `best/OBJECTIVE` at the best epoch.
    Its hyperparameters are the searched parameters, the preset and whether a person excluded the trial. Times of epochs
    are spread evenly over the training, since a study does not store them.
    """
    trained = [trial for trial in trials if trial.curves and trial.cause != QUEUED_AGAIN]
    # A fixed name: a second file in the folder of a run would be shown together with the first.
    return {f"trial-{each.number:04d}/events.out.tfevents.0.face3d-tune": _file(each, objective) for each in trained}


def _file(trial: Trial, objective: Objective) -> bytes:
    return b"".join(map(_record, _events(trial, objective)))


def _events(trial: Trial, objective: Objective) -> Iterator[bytes]:
    """Return the events of a trial, in the order of time."""
    epochs = max(map(len, trial.curves.values()))
    began = trial.started.timestamp() if trial.started else 0.0
    pace = (trial.seconds or 0.0) / epochs
    yield _double(1, began) + _bytes(3, _VERSION)
    yield _event(began, 0, _hparams("session_start_info", 3, _session(trial, began)))
    for epoch in range(1, epochs + 1):
        values = [_scalar(name, curve[epoch - 1]) for name, curve in trial.curves.items() if epoch <= len(curve)]
        if epoch == trial.best_epoch and trial.value is not None:
            values.append(_scalar(f"best/{objective.name}", trial.value))
        yield _event(began + epoch * pace, epoch, *values)
    ended = began + epochs * pace
    status = _STATUS.get(trial.state, _SUCCESS)
    yield _event(ended, 0, _hparams("session_end_info", 4, _integer(1, status) + _double(2, ended)))


def _session(trial: Trial, began: float) -> bytes:
    """Encode a SessionStartInfo."""
    values = {**trial.params, "preset": trial.preset or trial.origin, "excluded": trial.excluded is not None}
    pairs = [_bytes(1, _bytes(1, name.encode()) + _bytes(2, _value(value))) for name, value in values.items()]
    return b"".join(pairs) + _double(5, began)


def _value(value: Any) -> bytes:
    """Encode a google.protobuf.Value."""
    if isinstance(value, bool):
        return _integer(4, value)
    if isinstance(value, int | float):
        return _double(2, value)
    return _bytes(3, str(value).encode())


def _hparams(tag: str, field: int, content: bytes) -> bytes:
    """Encode a Summary.Value of the plugin; `field` is that of its HParamsPluginData."""
    plugin = _bytes(1, b"hparams") + _bytes(2, _bytes(field, content))
    return _bytes(1, f"_hparams_/{tag}".encode()) + _bytes(9, _bytes(1, plugin))


def _scalar(tag: str, value: float) -> bytes:
    """Encode a Summary.Value with a number."""
    return _bytes(1, tag.encode()) + b"\x15" + struct.pack("<f", _single(value))


def _single(value: float) -> float:
    """Return a number that a float32 can hold; a larger one is infinite there."""
    try:
        struct.pack("<f", value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    return value


def _event(when: float, step: int, *values: bytes) -> bytes:
    return _double(1, when) + _integer(2, step) + _bytes(5, b"".join(_bytes(1, value) for value in values))


def _record(event: bytes) -> bytes:
    head = struct.pack("<Q", len(event))
    return head + struct.pack("<I", masked(head)) + event + struct.pack("<I", masked(event))


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(number: int) -> bytes:
    encoded = b""
    while number > 0x7F:
        encoded, number = encoded + bytes((number & 0x7F | 0x80,)), number >> 7
    return encoded + bytes((number,))
