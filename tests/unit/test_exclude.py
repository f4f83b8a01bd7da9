"""`face3d-tune exclude`: an excluded trial counts nowhere but in the budget, at once, until it is brought back."""

import contextlib
import csv
import json
import re
import threading
from types import SimpleNamespace

import optuna
import pytest
from command_line import call
from optuna.pruners import HyperbandPruner, MedianPruner
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from searches import SAMPLED_ONLY, Scripted, Watch, file_of, search_in
from stored_script import searched_script, study_of_script
from stored_study import START, searched, study_of, trial_of

from face3d_tune.analysis.findings import find
from face3d_tune.cli.progress import Tally
from face3d_tune.cli.run_output import _follow
from face3d_tune.dashboard.notes import study_note, trial_note
from face3d_tune.report.csv_files import csv_files
from face3d_tune.report.render import report
from face3d_tune.search.exclude import bring_back, exclude
from face3d_tune.search.failed_trials import FailuresAsWorst
from face3d_tune.search.pruning import CompletedTrials, TrialReporter
from face3d_tune.search.retention import Retention
from face3d_tune.search.target import reached_by_any
from face3d_tune.search.tried_config import tried_config
from face3d_tune.storage.database import Storage
from face3d_tune.study.exclusions import exclusions_of, read_trials, said
from face3d_tune.study.lookup import pick_trial
from face3d_tune.study.records import records
from face3d_tune.study.status import summary
from face3d_tune.study.trials import best_trial, preset_rows, queued_by_request, trained_here

pytestmark = pytest.mark.slow

PATIENCE = 60.0  # seconds
BY = re.compile(r"by \S+@\S+ at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture
def study(sqlite):
    """`faces` with the values 0.55, 0.7, 0.6; a pruned trial; one that diverged, one interrupted, one not begun."""
    return study_of(
        trial_of("COMPLETE", 0.55, preset="baseline"),
        trial_of("COMPLETE", 0.7, minute=1),
        trial_of("COMPLETE", 0.6, minute=2, tried=["lr=1e-3"]),
        trial_of("PRUNED", 0.3, epochs=5, minute=3),
        trial_of("FAIL", minute=4, cause="diverged"),
        trial_of("FAIL", minute=5, put_back=True),
        trial_of("WAITING", minute=6),
        storage=sqlite,
    )


def typed(place, *words):
    answer = call("exclude", *words, cwd=place, FACE3D_TUNE_STORAGE="sqlite:///studies.db")
    return answer.code, BY.sub("by ME at NOW", answer.out + answer.err)


def out(study, number, reason=""):
    return exclude(study, study._storage._backend.engine, number, reason)


# The command


def test_the_best_is_another_until_the_trial_is_brought_back(study, tmp_path):
    assert typed(tmp_path, 1, "--reason", "trained on  the old labels") == (
        0,
        'trial 1 is excluded by ME at NOW: "trained on the old labels"\nthe best is now trial 2: cosine 0.6000\n',
    )
    assert (best_trial(study).number, pick_trial(study, None).number) == (2, 2)
    assert typed(tmp_path, 1, "--undo") == (0, "trial 1 counts again\nthe best is now trial 1: cosine 0.7000\n")
    assert (best_trial(study).number, exclusions_of(study)) == (1, {})


def test_the_only_completed_trial_leaves_none(sqlite, tmp_path):
    study_of(trial_of("COMPLETE", 0.5), storage=sqlite)
    assert typed(tmp_path, 0) == (0, "trial 0 is excluded by ME at NOW\nno completed trial counts now\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["9"], "error: study 'faces' has no trial 9\nhint: it holds 0 to 6\n"),
        (["9", "--undo"], "error: study 'faces' has no trial 9\nhint: it holds 0 to 6\n"),
        (["6"], "error: trial 6 has not started\nhint: exclude it once it has ended\n"),
        (["5"], "error: trial 5 counts nowhere already: it failed\nhint: see `face3d-tune status`\n"),
        (["0", "--undo"], "error: trial 0 of study 'faces' is not excluded\nhint: excluded: 1\n"),
        (
            ["1"],
            'error: trial 1 is excluded by ME at NOW: "old"\nhint: to bring it back: `face3d-tune exclude 1 --undo`\n',
        ),
        (["0", "--reason", "x" * 501], "error: the reason has 501 characters; expected at most 500\nhint: say it in a"),
        (["0", "--undo", "--reason", "x"], "error: --reason goes with an exclusion, not with --undo\nhint: see `face"),
    ],
)
def test_what_cannot_be_excluded_is_said_in_a_line(study, tmp_path, words, said):
    out(study, 1, "old")
    code, answer = typed(tmp_path, *words)
    assert (code, answer[: len(said)], answer.count("\n")) == (2, said, 2)
    assert list(exclusions_of(study)) == [1]


def test_a_trial_in_training_waits_for_its_end(sqlite, tmp_path):
    study_of(trial_of("RUNNING"), storage=sqlite)
    code, said = typed(tmp_path, 0)
    assert (code, said) == (2, "error: trial 0 is in training\nhint: exclude it once it has ended\n")


# Everywhere where a trial counts


def test_presets_and_tried_trials_leave_the_tables_but_can_be_tried_again(study):
    for number in (0, 2):
        out(study, number)
    assert (preset_rows(study), queued_by_request(study)) == ([], [])
    assert tried_config(study, [], preset="baseline").params == {"lr": 1e-3, "pose_unit": "degrees"}


def test_the_findings_have_it_in_budget_and_effort_alone(study):
    before = find(study)
    out(study, 1)
    now = find(study)
    assert (now.finished, now.states, now.epochs, now.seconds, now.pruning) == (
        *(before.finished, before.states, before.epochs, before.seconds, before.pruning),
    )
    assert (before.best.number, now.best.number) == (1, 2)
    assert [step.trial for step in now.improvements] == [0, 2]
    assert [step.finished for step in now.improvements] == [1, 3]
    assert [trial.number for trial in now.runners_up] == []
    assert 1 not in [trial.number for trial in now.trials]
    assert [trial.number for trial in now.excluded] == [1]


def test_importances_ask_the_others_alone(sqlite):
    """Twelve completed trials are the fewest that have importances; the study has thirteen."""
    study = study_of(*searched(), storage=sqlite)
    out(study, 2)
    assert find(study).importances
    out(study, 3)
    assert not find(study).importances


def test_a_target_reached_by_an_excluded_trial_is_not_reached(study):
    assert reached_by_any(read_trials(study), {"target": 0.65})
    out(study, 1)
    assert not reached_by_any(read_trials(study), {"target": 0.65})


class Spy(RandomSampler):
    """Notes which finished trials it is shown."""

    def infer_relative_search_space(self, study, trial):
        self.seen = [each.number for each in study.get_trials() if each.state.is_finished()]
        return super().infer_relative_search_space(study, trial)


def test_the_sampler_does_not_see_it_also_if_it_failed_by_its_config(study):
    for number in (1, 3, 4):
        out(study, number)
    spy = Spy()
    study.sampler = FailuresAsWorst(spy, exclusions_of(study))
    study.ask().suggest_float("dropout", 0.0, 1.0)
    assert spy.seen == [0, 2, 5]


def test_the_pruner_does_not_compare_with_it(study):
    """The median of 0.55, 0.6 and 0.7 at their last epoch is 0.6; without 0.55 and 0.6 it is 0.7."""
    study.pruner = MedianPruner(n_startup_trials=1, n_warmup_steps=0)
    completed = CompletedTrials(study)
    asked = TrialReporter(study.ask(), completed)
    asked.report(0.65, 20, 1e-3)
    assert not asked.should_prune()
    for number in (0, 2):
        out(study, number)
    completed.forget()
    assert asked.should_prune()


def test_nor_does_a_pruner_that_reads_the_whole_study(study, monkeypatch):
    seen = []

    def prune(self, view, trial):
        seen.extend(each.number for each in view.get_trials(states=(TrialState.COMPLETE,)))
        return False

    monkeypatch.setattr(HyperbandPruner, "prune", prune)
    study.pruner = HyperbandPruner()
    out(study, 0)
    reporter = TrialReporter(study.ask(), CompletedTrials(study))
    reporter.report(0.1, 1, None)
    reporter.should_prune()
    assert seen == [1, 2]


def test_its_weights_go_first(study):
    retention = Retention(study, SimpleNamespace(), keep=2)
    assert retention._ranked() == ["trial-1", "trial-2", "trial-0", "trial-3"]
    out(study, 1)
    assert retention._ranked() == ["trial-2", "trial-0", "trial-3", "trial-1"]


def test_a_running_count_forgets_and_remembers_it(study):
    tally = Tally("faces", 50, read_trials(study))
    assert (tally.best, tally.to_beat, tally.done) == ((0.7, 1), ("baseline", 0.55), 4)
    for number in (0, 1):
        out(study, number)
    tally.recount(exclusions_of(study))
    assert (tally.best, tally.to_beat, tally.done) == ((0.6, 2), None, 4)
    tally.recount({})
    assert (tally.best, tally.to_beat, tally.done) == ((0.7, 1), ("baseline", 0.55), 4)


# Shown


def test_status_says_who_when_and_why(study, tmp_path):
    out(study, 1, "old labels")
    shown = call("status", cwd=tmp_path, FACE3D_TUNE_STORAGE="sqlite:///studies.db").out
    assert '         trial 1 is excluded by ME at NOW: "old labels"\n' in BY.sub("by ME at NOW", shown)
    assert "best validation cosine 0.6000, trial 2" in shown
    answer = call("status", "--json", cwd=tmp_path, FACE3D_TUNE_STORAGE="sqlite:///studies.db")
    (held,) = json.loads(answer.out)["studies"]
    assert [(each["trial"], each["reason"]) for each in held["excluded"]] == [(1, "old labels")]


@pytest.mark.parametrize("of_script", [False, True])
def test_table_report_and_note_say_it_too(sqlite, capsys, of_script):
    from face3d_tune.cli.result_tables import before_and_after

    if of_script:
        study = study_of_script(*searched_script("minimize"), direction="minimize", storage=sqlite)
    else:
        study = study_of(*searched(), storage=sqlite)
    best = best_trial(study)
    out(study, best.number, "old labels")
    before_and_after(study)
    found, line = find(study), f"trial {best.number} is excluded"
    assert found.best.number != best.number
    assert line in capsys.readouterr().out
    assert f"Trial {best.number} is excluded, by" in report(found, "md", "en", START)
    assert "old labels" in report(found, "md", "zh", START)
    (held,) = json.loads(report(found, "json", "en", START))["excluded"]
    assert (held["trial"], held["state"], held["reason"]) == (best.number, "complete", "old labels")
    assert f"The best of the others is trial {found.best.number}." in study_note(found)
    assert "old labels" in study_note(found)
    assert "The best trial" in trial_note(found, found.best)


def test_a_copy_of_the_study_has_it_too(study, tmp_path):
    out(study, 1, "old labels")
    place = f"sqlite:///{(tmp_path / 'copy.db').as_posix()}"
    assert call("copy", "sqlite:///studies.db", place, cwd=tmp_path).code == 0
    with Storage.parse(place).opened() as opened:
        copied = summary(optuna.load_study(study_name="faces", storage=opened))
    assert (copied["best_trial"], copied["excluded"][0]["reason"]) == (2, "old labels")


def test_its_record_and_its_row_say_it(study):
    out(study, 1, "old labels")
    line = said(1, exclusions_of(study)[1])
    assert [trial.excluded for trial in records(study)][:3] == [None, line, None]
    first, second, third, *_ = csv.DictReader(csv_files(records(study))["trials.csv"].decode("utf-8-sig").splitlines())
    assert (first["excluded"], second["excluded"], third["excluded"]) == ("", line, "")


def test_no_mark_is_stored_with_a_trial(study):
    out(study, 1)
    assert "excluded" in read_trials(study)[1].user_attrs
    assert "excluded" not in study.get_trials(deepcopy=False)[1].user_attrs
    bring_back(study, study._storage._backend.engine, 1)
    assert "excluded" not in read_trials(study)[1].user_attrs


# While workers run

PRUNED_BY_THE_MEDIAN = """
[pruner]
name = "median"
n_startup_trials = 1
n_warmup_steps = 1
"""


def test_trials_that_people_exclude_at_one_moment_are_all_excluded(storage, storage_url):
    """Each by a connection of its own, as by the terminal and by the dashboard; then all are brought back."""
    count = 8
    study_of(*(trial_of("COMPLETE", 0.5) for _ in range(count)), storage=storage)
    together = threading.Barrier(count, timeout=PATIENCE)

    def work(number, change, failed):
        with Storage.parse(storage_url).opened() as opened:
            study = optuna.load_study(study_name="faces", storage=opened)
            together.wait()
            try:
                change(study, opened.engine, number)
            except Exception as error:
                failed.append(error)

    for change, left in ((exclude, list(range(count))), (bring_back, [])):
        failed = []
        threads = [threading.Thread(target=work, args=(number, change, failed)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert failed == []
        assert list(exclusions_of(optuna.load_study(study_name="faces", storage=storage))) == left


@pytest.mark.parametrize("excluded", [False, True])
def test_a_search_prunes_by_the_others_alone_from_the_next_epoch_on(sqlite, tmp_path, data, excluded):
    """Trial 1 falls behind the only completed one in epoch 3; that one is excluded in epoch 2, when it was known."""
    search = search_in(sqlite, file_of(tmp_path, SAMPLED_ONLY + PRUNED_BY_THE_MEDIAN), data, epochs=4)

    def play(task, number):
        if excluded and (task.number, number) == (1, 2):
            exclude(search.study, sqlite.engine, 0)
            search.exclusions._pace._next -= 10  # as if a second had passed
        value = 0.6 if task.number else 0.5 if number < 3 else 0.9
        return value, "finished" if number == 4 else None

    watch = Watch()
    search.run(2, watch, slots=Scripted(1, play))
    assert [trial.state.name for trial in search.study.trials] == ["COMPLETE", "COMPLETE" if excluded else "PRUNED"]
    assert len(watch.epochs[1]) == (4 if excluded else 3)


def test_two_workers_on_postgresql_notice_it_and_the_budget_stays_exact(
    postgres_tables_url, tmp_path, data, near_server
):
    """One worker's trial 0 is excluded while both train; then each trains one more of the four."""
    url, watches, asked = postgres_tables_url, [Watch(), Watch()], []
    both, heard = threading.Barrier(2, timeout=PATIENCE), threading.Event()
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(Storage.parse(url).opened()) for _ in range(2)]
        workers = [search_in(storage, file_of(tmp_path, SAMPLED_ONLY), data, epochs=2) for storage in opened]
        shown = [Tally("quick", 4), Tally("quick", 4)]

        def play(task, number):
            if task.number in (1, 2) and number == 1 and not heard.is_set():
                both.wait()  # trial 0 has ended: it was the first worker's, which trains 2 now
                if task.number == 2:
                    asked.append(call("exclude", "0", "--reason", "old", "--storage", url, cwd=tmp_path))
                    for worker in workers:
                        worker.exclusions._pace._next -= 10  # as if a second had passed
                    heard.set()
                heard.wait(PATIENCE)
            return 0.9 - 0.1 * task.number, "finished" if number == 2 else None

        def work(place):
            worker = workers[place]
            worker.exclusions.changed = shown[place].recount
            if place:
                begun.wait(PATIENCE)
            worker.run(4, watches[place], slots=Scripted(1, play))

        begun = threading.Event()
        watches[0].trial_started = lambda *about: (Watch.trial_started(watches[0], *about), begun.set())
        threads = [threading.Thread(target=work, args=(place,)) for place in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in threads)
        assert [answer.code for answer in asked] == [0]
        study = workers[0].study
        assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4
        assert (workers[0].finished(), best_trial(study).number) == (4, 1)
        for watch in watches:
            assert [BY.sub("by ME at NOW", line) for line in watch.notes] == ['trial 0 is excluded by ME at NOW: "old"']
        assert sum(map(trained_here, read_trials(study))) == 4


def test_a_search_counts_what_other_workers_ended_but_nothing_excluded_as_the_best(sqlite, tmp_path, data):
    def again():
        return search_in(sqlite, file_of(tmp_path, SAMPLED_ONLY), data, epochs=2)

    study, tally = again().study, Tally("quick", 4)
    for value in (0.8, 0.9):
        study.add_trial(trial_of("COMPLETE", value))
    out(study, 1, "old")
    search = again()
    _follow(search, tally)
    search.run(4, Watch(), slots=Scripted(1, lambda task, number: (0.5, "finished" if number == 2 else None)))
    assert (tally.done, tally.best) == (3, (0.8, 0))  # and its own first trial, as it took the last one


def test_watch_says_it_and_what_is_the_best_then(sqlite, tmp_path, monkeypatch):
    import sys

    study = study_of(*[trial_of("COMPLETE", 0.5 + 0.1 * place, minute=place) for place in range(2)], storage=sqlite)
    study.set_user_attr("effort", {"trials": 3})

    def third():
        study.add_trial(trial_of("COMPLETE", 0.2, minute=3))

    steps = iter([lambda: out(study, 1, "old"), lambda: bring_back(study, sqlite.engine, 1), third])
    monkeypatch.setattr(sys.modules["face3d_tune.cli.watch"], "time", SimpleNamespace(sleep=lambda _: next(steps)()))
    answer = call("watch", cwd=tmp_path, FACE3D_TUNE_STORAGE="sqlite:///studies.db")
    first, second, *_, last = answer.out.splitlines()
    assert BY.sub("by ME at NOW", first) == 'trial 1 is excluded by ME at NOW: "old"'
    assert second == "trial 1 counts again"
    assert last.endswith("best cosine 0.6000, trial 1")
