"""`report --format csv|tensorboard`: what a spreadsheet and TensorBoard get of a study."""

import csv
import io
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import call
from stored_script import script_trial, study_of_script
from stored_study import START, recognised, searched, study_of, trial_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from face3d_tune.report.csv_files import csv_files
from face3d_tune.report.event_files import event_files
from face3d_tune.script.running import event_file
from face3d_tune.storage.database import Storage
from face3d_tune.study.objective import COSINE, Objective
from face3d_tune.study.records import records

RUN = "events.out.tfevents.0.face3d-tune"


def rows(content):
    """The rows of a table, as a program reads them that knows nothing of ours."""
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


@pytest.fixture(scope="module")
def trials():
    return records(recognised())


@pytest.fixture(scope="module")
def stored(tmp_path_factory, sqlite_without_studies):
    """A storage with a study of the built-in trainer, one of a script, and one without trials, to be copied."""
    file = Path(shutil.copy(sqlite_without_studies, tmp_path_factory.mktemp("stored")))
    with Storage.parse(f"sqlite:///{file.as_posix()}").opened() as opened:
        study_of(*searched(), storage=opened)
        study_of_script(script_trial("COMPLETE", (0.4, 0.6)), storage=opened)
        study_of(name="empty", storage=opened)
    return file


@pytest.fixture
def place(stored, tmp_path):
    """A folder with the three studies in the default storage."""
    shutil.copy(stored, tmp_path / "face3d_tune.db")
    return tmp_path


def test_the_first_table_has_a_row_for_each_trial(trials):
    table = rows(csv_files(trials)["trials.csv"])

    assert [int(row["trial"]) for row in table] == list(range(16))
    best, failed = table[12], table[15]
    assert (best["state"], best["origin"], best["preset"], best["seed"]) == ("complete", "sampled", "", "11")
    assert (float(best["value"]), int(best["best_epoch"]), int(best["epochs"])) == (0.7, 20, 20)
    assert (float(best["params_lr"]), best["params_pose_unit"], float(best["seconds"])) == (3e-3, "radians", 60)
    assert (float(best["numbers_cosine"]), float(best["numbers_rank1_enrolled"])) == (0.7, 0.5)
    assert (best["config_d_model"], best["started"]) == ("16", "2026-01-01 00:12:00")
    assert (failed["state"], failed["value"], failed["cause"]) == ("fail", "", "error")
    assert table[0]["preset"] == "baseline"
    assert [row["state"] for row in table].count("pruned") == 2
    assert float(table[13]["value"]) == pytest.approx(0.3)  # of a pruned trial at its best epoch


def test_the_second_table_has_a_row_for_each_epoch(trials):
    table = rows(csv_files(trials)["curves.csv"])

    assert len(table) == 13 * 20 + 2 * 5
    of_best = [row for row in table if row["trial"] == "12"]
    assert [int(row["epoch"]) for row in of_best] == list(range(1, 21))
    # It rises to 0.7 in twenty equal steps, while the validation loss falls to 0.5; see stored_study.
    assert [float(row["numbers_cosine"]) for row in of_best] == pytest.approx([0.035 * n for n in range(1, 21)])
    assert float(of_best[-1]["numbers_val_loss"]) == 0.5
    assert {row["numbers_lr"] for row in of_best} == {"0.003"}


def test_a_table_opens_in_excel_and_runs_nothing(trials):
    error = '=HYPERLINK("http://evil", "看, 这里")\nTraceback'
    params = {"activation": "-gelu", "lr": -1e-3, "flag": True, "@name": "正面", "wide": "＝1"}
    table = csv_files([replace(trials[0], error=error, params=params)])["trials.csv"]

    assert table.startswith(b"\xef\xbb\xbftrial,state,")  # the mark, without which Excel reads GBK on a Chinese Windows
    (row,) = rows(table)
    assert row["error"] == f"'{error}"
    assert (row["params_activation"], float(row["params_lr"]), row["params_flag"]) == ("'-gelu", -1e-3, "true")
    assert (row["params_@name"], row["params_wide"]) == ("正面", "'＝1")


def test_names_of_a_script_cannot_hide_a_column_of_ours():
    study = study_of_script(script_trial("COMPLETE", (0.4, 0.6), config={"state": "x", "value": 3, "lr": 1e-3}))
    (row,) = rows(csv_files(records(study))["trials.csv"])
    assert (row["state"], row["config_state"], row["value"], row["config_value"]) == ("complete", "x", "0.6", "3")
    assert float(row["numbers_Train/Loss"]) == 0.9


def test_a_study_without_trials_is_a_table_without_rows():
    files = csv_files(records(study_of()))
    assert {name: rows(content) for name, content in files.items()} == {"trials.csv": [], "curves.csv": []}


def test_a_trial_that_was_queued_again_says_so():
    study = study_of(trial_of("FAIL", put_back=True, error="the worker died"))
    (trial,) = records(study)
    assert (trial.cause, trial.error) == ("queued_again", "the worker died")
    assert rows(csv_files([trial])["trials.csv"])[0]["cause"] == "queued_again"


def test_a_trial_that_was_queued_again_is_no_run_beside_its_successor():
    lost = trial_of("FAIL", curve=(0.1, 0.2), put_back=True)
    study = study_of(lost, trial_of("COMPLETE", curve=(0.1, 0.2, 0.3), minute=1))
    assert list(event_files(records(study), COSINE)) == [f"trial-0001/{RUN}"]


def read(folder, content):
    """What TensorBoard's own reader finds in an event file."""
    folder.mkdir()
    (folder / RUN).write_bytes(content)
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_tensorboard_reads_the_curves_and_the_best_epoch(trials, tmp_path):
    files = event_files(trials, COSINE)

    assert list(files)[:2] == [f"trial-0000/{RUN}", f"trial-0001/{RUN}"]
    assert f"trial-0015/{RUN}" not in files  # it failed before its first epoch
    events = read(tmp_path / "run", files[f"trial-0012/{RUN}"])
    assert set(events.Tags()["scalars"]) == {"cosine", "train_loss", "val_loss", "lr", "best/cosine"}
    cosine = events.Scalars("cosine")
    assert [event.step for event in cosine] == list(range(1, 21))
    assert [event.value for event in cosine] == pytest.approx([0.035 * n for n in range(1, 21)])
    began = START.timestamp() + 12 * 60
    assert [event.wall_time for event in cosine] == pytest.approx([began + 3 * n for n in range(1, 21)])
    (best,) = events.Scalars("best/cosine")
    assert (best.step, best.value) == (20, pytest.approx(0.7))
    ours, _ = event_file.read(tmp_path / "run" / RUN)
    assert [each.value for each in ours if each.tag == "cosine"] == [event.value for event in cosine]


def test_tensorboard_reads_the_hyperparameters(trials, tmp_path):
    events = read(tmp_path / "run", event_files(trials, COSINE)[f"trial-0000/{RUN}"])

    told, parse = events.PluginTagToContent("hparams"), plugin_data_pb2.HParamsPluginData.FromString
    held = {tag: parse(content) for tag, content in told.items()}
    start = held["_hparams_/session_start_info"].session_start_info
    assert start.hparams["lr"].number_value == 1e-3
    assert start.hparams["pose_unit"].string_value == "degrees"
    assert start.hparams["preset"].string_value == "baseline"
    assert start.hparams["excluded"].bool_value is False
    assert start.start_time_secs == START.timestamp()
    assert held["_hparams_/session_end_info"].session_end_info.status == 1  # STATUS_SUCCESS


def test_tensorboard_tells_excluded_trials_from_the_others(trials, tmp_path):
    trials = [replace(trials[0], excluded="trial 0 is excluded by ada"), *trials[1:]]
    events = read(tmp_path / "run", event_files(trials, COSINE)[f"trial-0000/{RUN}"])

    start = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    parsed = plugin_data_pb2.HParamsPluginData.FromString(start).session_start_info
    assert parsed.hparams["excluded"].bool_value is True


def test_a_changed_byte_would_be_noticed(trials, tmp_path):
    content = bytearray(event_files(trials, COSINE)[f"trial-0012/{RUN}"])
    content[len(content) // 2] ^= 1
    assert len(read(tmp_path / "run", bytes(content)).Scalars("cosine")) < 20


def test_numbers_of_a_script_that_float32_cannot_hold_are_infinite_or_nan(tmp_path):
    curve = (1e300, -1e300, math.nan)
    trial = script_trial("RUNNING", curve, direction="minimize")
    study = study_of_script(trial, direction="minimize")
    (content,) = event_files(records(study), Objective.of_study(study.user_attrs)).values()
    high, low, nan = (event.value for event in read(tmp_path / "run", content).Scalars("val_loss"))
    assert (high, low, math.isnan(nan)) == (math.inf, -math.inf, True)


def test_the_command_writes_a_folder_and_overwrites_no_file_unasked(place):
    answer = call("report", "faces", "--format", "csv", cwd=place)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "wrote report-faces-csv: trials.csv with 16 rows, and curves.csv\n"
    written = place / "report-faces-csv" / "trials.csv"
    assert len(rows(written.read_bytes())) == 16

    written.write_text("mine", encoding="utf-8")
    again = call("report", "faces", "--format", "csv", cwd=place)
    assert again.code == 2
    assert again.err.splitlines()[0] == f"error: {written.relative_to(place)} exists and would be overwritten"
    assert written.read_text(encoding="utf-8") == "mine"
    assert call("report", "faces", "--format", "csv", "--force", cwd=place).code == 0
    assert len(rows(written.read_bytes())) == 16


def test_the_command_writes_a_run_for_each_trial_of_a_script(place):
    answer = call("report", "triplet", "--format", "tensorboard", "-o", "logs", cwd=place)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "wrote 1 event file; to see them: tensorboard --logdir logs\n"
    scalars, _ = event_file.read(place / "logs" / "trial-0000" / RUN)
    named = [(each.tag, each.step, round(each.value, 6)) for each in scalars]
    assert ("Val/CosineSimilarity", 2, 0.6) in named
    assert ("best/Val/CosineSimilarity", 2, 0.6) in named


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "csv", "-o", "-"), "error: --format csv writes files into a folder; expected -o DIR"),
        (("--format", "csv", "-o", "file"), "error: --out file cannot be written: "),
    ],
)
def test_what_is_no_folder_is_named(place, words, said):
    (place / "file").write_text("", encoding="utf-8")
    answer = call("report", "faces", *words, cwd=place)
    assert (answer.code, answer.err.splitlines()[0][: len(said)]) == (2, said)


def test_a_study_that_has_trained_nothing_has_nothing_for_tensorboard(place):
    answer = call("report", "empty", "--format", "tensorboard", cwd=place)
    assert (answer.code, answer.err.splitlines()[0]) == (2, "error: study 'empty' has no trial with an epoch yet")
    assert not (place / "report-empty-tensorboard").exists()
