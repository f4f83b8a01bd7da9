"""The picture of a search, in columns; what is counted for it; and the same for programs."""

import io
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.cells import cell_len
from rich.console import Console
from searches import epoch
from stored_study import add_trial, our_study, recognised, recognition_of, searched, study_of, trial_of

from face3d_tune.cli import language, result_tables
from face3d_tune.cli.live import InTraining, Picture, Standing
from face3d_tune.cli.progress import JsonLines, SearchProgress, Tally, ended
from face3d_tune.cli.run_output import JsonView
from face3d_tune.cli.watch import _in_training
from face3d_tune.config import TrialConfig
from face3d_tune.search.run_search import OpenSearch
from face3d_tune.study.objective import COSINE
from face3d_tune.training.recognition import Recognition

STANDING = Standing("default", 17, 6, 50, 0.6532, 16, ("baseline", 0.5971), (540.0, 840.0))
TRAINING = [
    InTraining(18, "sampled", 100, 4, 0.2947, 8.1e-4),
    InTraining(19, "我的预设", 100, 61, 0.6532, 5e-5),
    InTraining(20, "conservative", 100),
]
THREE_FOLDS = {"settings": {"folds": 3}}
CONFIG = TrialConfig(d_model=16, dim_feedforward=64, epochs=30)


def drawn(width, standing=STANDING, training=TRAINING):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(Picture(standing, training))
    return console.file.getvalue().splitlines()


def test_every_trial_has_a_line_beside_the_preset_to_beat_and_the_study_has_the_last():
    assert drawn(80) == [
        "#18 sampled          4/100  cosine 0.2947  -0.3024 on baseline  lr 8.1e-04",
        "#19 我的预设        61/100  cosine 0.6532  +0.0561 on baseline  lr 5.0e-05",
        "#20 conservative     0/100",
        "default  17 of 50 done, 6 pruned  best 0.6532 #16  9–14 min left",
    ]


def test_the_lines_are_chinese_and_still_in_columns(monkeypatch):
    monkeypatch.setattr(language, "_chosen", "zh")
    assert drawn(80) == [
        "#18 sampled          4/100  余弦 0.2947  比 baseline -0.3024  lr 8.1e-04",
        "#19 我的预设        61/100  余弦 0.6532  比 baseline +0.0561  lr 5.0e-05",
        "#20 conservative     0/100",
        "default  完成 17 / 50，剪枝 6  最好 0.6532 #16  剩余 9–14 分钟",
    ]
    standing = Standing("很长的研究名字" * 5, 1, 0, None, 0.5, 3, ("preset-" * 9, 0.4), (5400.0, 9000.0))
    for width in (20, 40, 80, 120):
        assert all(cell_len(line) <= width for line in drawn(width, standing, TRAINING * 3))


def test_a_wide_terminal_has_room_for_bars():
    first, second, *_ = drawn(120)
    assert "  ━───────────────────  " in first
    assert second.count("━") == 12


@pytest.mark.parametrize("folds", [1, 3])
def test_a_trial_in_training_has_rank_1_at_the_end_of_its_line_where_there_is_room(folds):
    longest = Standing("q", 1, 0, 9, 0.6, 0, ("my-own-long-preset", 0.6), None)
    trial = InTraining(18, "sampled", 100, 4, 0.2947, 8.1e-4, folds=folds, rank1=0.6524)
    ends = {width: drawn(width, longest, [trial])[0] for width in (100, 119, 120, 140)}
    assert [width for width, line in ends.items() if line.endswith("  lr 8.1e-04  rank-1 0.652")] == (
        [120, 140] if folds == 1 else [140]
    )
    assert "rank-1" not in "".join(line for width, line in ends.items() if width < 120)


def test_run_gives_its_live_line_the_rank_1_of_the_epoch(study):
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    watcher = SearchProgress(console, Tally("faces", 9))
    watcher.trial_started(4, None, CONFIG.to_dict())
    watcher.epoch_ended(4, replace(epoch(1, 0.5), recognition=Recognition.of(recognition_of(0.4))))
    console.print(watcher._picture())
    assert console.file.getvalue().splitlines()[0].endswith("rank-1 0.400")
    watcher.fold_started(4, 2, 3)
    assert watcher._training[4].rank1 is None


@pytest.mark.parametrize("width", [20, 40, 79, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal_whatever_the_names(width):
    standing = Standing("很长的研究名字" * 5, 1, 0, 10, 0.5, 3, ("preset-" * 9, 0.4), None)
    lines = drawn(width, standing, [InTraining(1234, "预设" * 20, 100, 50, 0.5, 1e-3)])
    assert len(lines) == 2
    assert all(cell_len(line) <= width for line in lines)


def test_long_names_give_way_to_the_numbers():
    standing = Standing(
        "人脸侧面到正面嵌入超参数搜索第三阶段", 17, 6, 50, 0.6532, 16, ("my-own-long-preset", 0.5971), (540.0, 840.0)
    )
    assert drawn(80, standing, [InTraining(7, "我自己的非常长的预设名字", 100, 61, 0.6532, 5e-5)]) == [
        "#7 我自己的非常长的…  61/100  cosine 0.6532  +0.0561 on my-own-long…  lr 5.0e-05",
        "人脸侧面到正面嵌入超参…  17 of 50 done, 6 pruned  best 0.6532 #16  9–14 min left",
    ]


def test_where_there_are_more_trials_than_lines_the_studys_line_stays():
    console = Console(file=io.StringIO(), width=80, height=6, force_terminal=False)
    console.print(Picture(STANDING, [InTraining(number, "sampled", 100) for number in range(9)]))
    lines = console.file.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "#0 sampled",
        "#1 sampled",
        "#2 sampled",
        "and 6 more in training",
        "default",
    ]


def test_what_is_not_known_yet_is_not_shown():
    assert drawn(80, Standing("q", 0, 0, None, None, None, None, None), []) == ["q  0 done, 0 pruned"]


FOLDS = [{"fold": fold, "value": value} for fold, value in enumerate((0.5, 0.7, 0.6), 1)]


def test_a_trial_of_several_folds_says_in_which_it_is_and_is_compared_on_the_same_people():
    standing = Standing("q", 1, 0, 9, 0.6, 0, ("baseline", 0.6), None, (0.5, 0.7, 0.6))
    training = [InTraining(7, "sampled", 100, 12, 0.65, 1e-3, fold=fold, folds=3) for fold in (1, 2)]
    assert drawn(80, standing, training)[:2] == [
        "#7 sampled          12/100  fold 1 of 3  cosine 0.6500  +0.1500 on baseline",
        "#7 sampled          12/100  fold 2 of 3  cosine 0.6500  -0.0500 on baseline",
    ]
    assert drawn(120, standing, training)[0].endswith("  fold 1 of 3  cosine 0.6500  +0.1500 on baseline  lr 1.0e-03")


def test_the_end_of_a_trial_of_several_folds_says_that_it_is_a_mean_or_how_far_it_came():
    study = our_study(None, "faces")
    add_trial(study, "COMPLETE", [0.5, 0.6], preset="baseline", folds=FOLDS, epochs_run=6)
    add_trial(study, "PRUNED", [0.3], folds=FOLDS[:2], epochs_run=4, stop_reason="pruned", raced_out_after_fold=2)
    add_trial(study, "PRUNED", [0.3], folds=FOLDS[:1], epochs_run=1, stop_reason="pruned")
    assert [ended(trial, False) for trial in study.trials] == [
        "#0 baseline        cosine 0.6000 (mean over 3 folds, 6 epochs, finished, 60 s)",
        "#1 sampled         cosine 0.3000 (mean over 2 folds, 4 epochs, raced out after fold 2, 60 s)",
        "#2 sampled         cosine 0.3000 (fold 1, 1 epoch, pruned, 60 s)",
    ]
    standing = Tally("faces", 9, study.trials).standing(1, 0.0)
    assert (standing.to_beat, standing.to_beat_by_fold) == (("baseline", 0.6), [0.5, 0.7, 0.6])


def test_the_beginning_of_a_fold_is_told_to_a_person_and_to_a_program():
    said = []
    JsonLines(Console(file=io.StringIO()), Tally("faces", 9), said.append).fold_started(4, 2, 3)
    assert json.loads(said[0]) == {"event": "fold_started", "study": "faces", "trial": 4, "fold": 2, "folds": 3}
    progress = SearchProgress(Console(file=io.StringIO()), Tally("faces", 9))
    progress.trial_started(4, None, CONFIG.to_dict())
    progress.epoch_ended(4, epoch(30, 0.5))
    progress.fold_started(4, 2, 3)
    (shown,) = progress._picture().training
    assert (shown.epoch, shown.value, shown.fold, shown.folds) == (0, None, 2, 3)


def test_a_search_elsewhere_is_watched_in_the_fold_of_its_last_step():
    study = our_study(None, "faces")
    add_trial(study, "RUNNING", [])  # of at most 20 epochs
    trial = study.trials[0]
    trial.intermediate_values = {1: 0.1, 2: 0.2, 21: 0.3, 22: 0.4}
    shown = _in_training(trial, THREE_FOLDS)
    assert (shown.epoch, shown.epochs, shown.fold, shown.folds, shown.value) == (2, 20, 2, 3, 0.4)
    trial.intermediate_values = {20: 0.1}
    assert (
        _in_training(trial, THREE_FOLDS).epoch,
        _in_training(trial, THREE_FOLDS).fold,
    ) == (20, 1)
    trial.intermediate_values = {}
    assert (
        _in_training(trial, THREE_FOLDS).epoch,
        _in_training(trial, THREE_FOLDS).fold,
    ) == (0, 1)


def test_a_search_elsewhere_has_the_line_that_run_has_with_rank_1():
    study = our_study(None, "faces")
    add_trial(study, "RUNNING", [0.25, 0.5], config=CONFIG.to_dict(), lr_now=1e-4, rank1_now=0.4)
    progress = SearchProgress(Console(file=io.StringIO()), Tally("faces", 9))
    progress.trial_started(0, None, CONFIG.to_dict())
    rates = Recognition.of(recognition_of(0.4))
    progress.epoch_ended(0, replace(epoch(2, 0.5), next_lr=1e-4, recognition=rates))
    assert [_in_training(study.trials[0], study.user_attrs)] == progress._picture().training
    assert drawn(120, training=[_in_training(study.trials[0], study.user_attrs)])[0].endswith(
        "lr 1.0e-04  rank-1 0.400"
    )


@pytest.fixture
def study():
    study = our_study(None, "faces")
    add_trial(study, "COMPLETE", [0.5, 0.6], preset="baseline")
    add_trial(study, "PRUNED", [0.3])
    add_trial(study, "FAIL", [], error="no memory")
    add_trial(study, "COMPLETE", [0.7])
    return study


def test_the_tally_counts_finished_trials_and_knows_the_best_and_the_preset_to_beat(study):
    tally = Tally("faces", 50, study.trials)
    assert (tally.done, tally.pruned, tally.best, tally.to_beat) == (3, 1, (0.7, 3), ("baseline", 0.6))
    counted, best = "3 of 50 trials finished, 1 of them pruned", "best cosine 0.7000, trial 3, +0.1000 on baseline"
    assert str(tally) == f"{counted}; failed: 1 by an error; {best}"
    assert tally.standing(1, 0.0).left is None  # of three trials nothing follows
    assert str(Tally("faces", None)) == "0 trials finished, 0 of them pruned"


def test_imported_trials_are_no_work_of_the_search_and_unconfirmed_ones_never_its_best(study):
    add_trial(study, "COMPLETE", [0.8], origin="imported")
    add_trial(study, "COMPLETE", [0.9], origin="imported", confirmed=False)
    tally = Tally("faces", 50, study.trials)
    assert (tally.done, tally.best) == (3, (0.8, 4))


def test_the_line_of_a_trial_has_rank_1_where_there_is_room(study, monkeypatch):
    add_trial(study, "COMPLETE", [0.6], recognition=recognition_of(0.4))
    known = study.trials[-1]
    whole = "#4 sampled         cosine 0.6000, rank-1 0.400 (epoch 1 of 1, finished, 60 s)"
    assert ended(known, False) == ended(known, False, room=len(whole)) == whole
    assert ended(known, False, room=len(whole) - 1) == whole.replace(", rank-1 0.400", "")
    monkeypatch.setattr(language, "_chosen", "zh")
    assert language.translate(whole) == "#4 sampled         余弦 0.6000，rank-1 0.400（epoch 1 / 1，训练结束，60 秒）"


def test_a_program_gets_the_recognition_of_every_epoch_and_trial(study):
    add_trial(study, "COMPLETE", [0.6], recognition=recognition_of(0.4))
    lines = []
    watcher = JsonLines(Console(file=io.StringIO()), Tally("faces", 50), lines.append)
    rates = Recognition.of(recognition_of(0.4))
    watcher.epoch_ended(4, replace(epoch(1, 0.5), recognition=rates))
    watcher.epoch_ended(4, epoch(1, 0.5))  # of a snapshot of an earlier version
    watcher.trial_ended(study.trials[-1])
    first, second, third = map(json.loads, lines)
    assert (first["identity"], first["rank1"], "rank1" in second) == (-0.2, 0.4, False)
    assert third["recognition"] == recognition_of(0.4)


def test_a_trial_that_ended_has_a_line(study):
    complete, pruned, failed, best = study.trials
    assert ended(complete, False) == "#0 baseline        cosine 0.6000 (epoch 2 of 2, finished, 60 s)"
    assert ended(best, True) == "#3 sampled         cosine 0.7000 (epoch 1 of 1, finished, 60 s)  best so far"
    assert ended(failed, False) == "#2 sampled         failed, error: no memory"
    assert ended(pruned, False, "#1 预设").startswith("#1 预设            cosine 0.3000")


def test_without_a_terminal_there_is_a_line_a_trial_and_no_other_sign(study):
    console = Console(file=io.StringIO(), force_terminal=False, width=80, soft_wrap=True)
    progress = SearchProgress(console, Tally("faces", 50))
    with progress.shown():
        progress.trial_started(0, "baseline", CONFIG.to_dict())
        progress.epoch_ended(0, epoch(1, 0.5))
        progress.trial_ended(study.trials[0])
        progress.trial_started(7, None, CONFIG.to_dict())
        progress.trial_lost(7, "ended from outside")
    assert console.file.getvalue().splitlines() == [
        "#0 baseline        cosine 0.6000 (epoch 2 of 2, finished, 60 s)  best so far",
        "#7 sampled         ended from outside",
    ]


@pytest.mark.parametrize("quiet", [False, True])
def test_a_warning_is_shown_with_quiet_too_and_a_note_is_not(capsys, quiet):
    console = Console(file=io.StringIO(), quiet=quiet, width=80)
    progress = SearchProgress(console, Tally("faces", 50))
    progress.note("a note")
    progress.warning("the disk is full")
    shown = console.file.getvalue() + capsys.readouterr().err
    assert shown.splitlines() == ([] if quiet else ["a note"]) + ["warning: the disk is full"]


def test_a_program_gets_an_object_a_line(study):
    lines = []
    watcher = JsonLines(Console(file=io.StringIO()), Tally("faces", 50), lines.append)
    with watcher.shown():
        watcher.trial_started(0, "baseline", CONFIG.to_dict())
        watcher.epoch_ended(0, epoch(1, 0.5))
        watcher.trial_ended(study.trials[0])
        watcher.trial_ended(study.trials[2])
        watcher.trial_lost(5, "ended from outside")
        watcher.note("a note")
        watcher.warning("a warning")
    events = [json.loads(line) for line in lines]
    assert {event["study"] for event in events} == {"faces"}
    assert [event["event"] for event in events] == [
        *("trial_started", "epoch", "trial_ended", "trial_ended", "trial_lost", "note", "note")
    ]
    assert [event["text"] for event in events[5:]] == ["a note", "a warning"]
    assert events[0]["config"] == CONFIG.to_dict()
    assert (events[1]["trial"], events[1]["epoch"], events[1]["cosine"], events[1]["lr"]) == (0, 1, 0.5, 1e-3)
    assert (events[2]["state"], events[2]["value"], events[2]["best"]) == ("complete", 0.6, True)
    assert (events[4]["trial"], events[4]["reason"]) == (5, "ended from outside")
    assert (events[3]["state"], events[3]["value"], events[3]["error"]) == ("fail", None, "no memory")


@pytest.mark.parametrize("width", [80, 120])
def test_a_table_leaves_columns_out_before_it_cuts_a_name(study, monkeypatch, width):
    add_trial(study, "PRUNED", [0.4], preset="conservative")
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    monkeypatch.setattr(result_tables, "results_console", lambda: console)
    result_tables.before_and_after(study)
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    assert re.search(r"^conservative .*\(pruned\)", shown, re.M)
    assert "…" not in shown
    assert ("<15°" in shown, "in a wider terminal" in shown) == (width == 120, width == 80)


def test_a_preset_in_training_has_its_state_for_a_cosine(study, monkeypatch):
    study.add_trial(trial_of("RUNNING", preset="conservative"))
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    monkeypatch.setattr(result_tables, "results_console", lambda: console)
    result_tables.before_and_after(study)
    assert re.search(r"^conservative +\d+ +.* running$", console.file.getvalue(), re.M)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_table_has_rank_1_beside_the_cosine_and_first_says_whom_the_best_recognises_no_better_than(
    monkeypatch, width
):
    study = recognised(best=0.65, no_model=0.61, ridge=0.66)  # kernel ridge 0.8
    add_trial(study, "PRUNED", [0.4], preset="conservative", recognition=recognition_of(0.44))
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    monkeypatch.setattr(result_tables, "results_console", lambda: console)
    result_tables.before_and_after(study)
    shown = console.file.getvalue()
    first = " ".join(shown.partition("\n\n")[0].split())
    assert first == "The best trial raises the cosine, but recognises people no better than ridge or kernel ridge."
    rates = {line[:12].strip(): line.split()[-1 if width < 140 else -4] for line in shown.splitlines() if "0." in line}
    expected = {"no model": "0.610", "ridge": "0.660", "kernel ridge": "0.800", "baseline": "0.400"}
    assert rates.items() >= {**expected, "conservative": "0.440", "best trial": "0.650"}.items()
    assert "of 12" in shown
    assert max(map(len, shown.splitlines())) <= width
    assert ("loss*" in shown, "<15°" in shown, "TAR 1 %" in shown) == (width > 80, width > 80, width > 100)


def test_the_table_warns_of_nobody_whose_best_recognises_better_and_an_older_study_has_no_columns(monkeypatch):
    for study, columns in ((recognised(best=0.9), True), (study_of(*searched()), False)):
        console = Console(file=io.StringIO(), width=140, force_terminal=False)
        monkeypatch.setattr(result_tables, "results_console", lambda console=console: console)
        result_tables.before_and_after(study)
        shown = console.file.getvalue()
        assert shown.startswith("Validation on 3 people never trained on:")
        assert ("rank-1" in shown, "TAR" in shown) == (columns, columns)


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_of_a_study_for_identity_has_a_column_for_it_beside_the_cosine(monkeypatch, width):
    study = recognised()
    study.set_user_attr("settings", study.user_attrs["settings"] | {"objective": "identity"})
    add_trial(study, "PRUNED", [0.4], preset="conservative", recognition=recognition_of(0.44))
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    monkeypatch.setattr(result_tables, "results_console", lambda: console)
    result_tables.before_and_after(study)
    shown = console.file.getvalue()
    assert re.search(r"identity +cosine", shown)
    assert re.search(r"^no model +-0.2000 +0.5000", shown, re.M)
    assert max(map(len, shown.splitlines())) <= width
    assert ("factor and patience: in a wider terminal" in shown) == (width == 80)


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_names_the_models_input_where_a_trial_has_another_one_than_the_view(monkeypatch, width):
    trials = (trial_of("COMPLETE", 0.6, preset="baseline"), trial_of("COMPLETE", 0.7, inputs="kernel"))
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    monkeypatch.setattr(result_tables, "results_console", lambda: console)
    result_tables.before_and_after(study_of(*trials))
    result_tables.before_and_after(study_of(trials[0]))
    shown, _, of_views = console.file.getvalue().rpartition("Validation on")
    assert re.search(r"input +pose", shown)
    assert re.search(r"^baseline .* view +deg .*\n(.*\n)*best trial .* kernel +deg ", shown, re.M)
    assert "input" not in of_views
    assert max(map(len, shown.splitlines())) <= width


def test_what_other_workers_ended_counts_once_and_decides_what_is_the_best_so_far(study):
    tally = Tally("faces", 50, study.trials)
    add_trial(study, "COMPLETE", [0.8])
    add_trial(study, "RUNNING", [0.9])
    for _ in range(2):
        tally.catch_up(study.trials)
    assert (tally.done, tally.best) == (4, (0.8, 4))
    assert not tally.add(trial_of("COMPLETE", 0.75))


def test_the_last_event_has_the_whole_study_and_not_only_what_this_worker_ended(study):
    written = []
    search = SimpleNamespace(
        study=study, objective=COSINE, queue=SimpleNamespace(budget=4), exclusions=SimpleNamespace(), worker=None
    )
    opened = OpenSearch(search, "sqlite:///x.db", SimpleNamespace(engine="plain"), None, 0, False)
    view = JsonView(Console(file=io.StringIO()), written.append)
    view.opened(opened)
    add_trial(study, "COMPLETE", [0.8])  # by another worker
    view.ended(opened)
    last = json.loads(written[-1])
    assert (last["event"], last["done"], last["value"], last["trial"]) == ("finished", 4, 0.8, 4)
