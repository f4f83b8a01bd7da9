"""`face3d-tune try`: a config of a person's own is checked, queued, trained and shown under its name."""

import threading

import pytest
from command_line import call
from optuna.distributions import CategoricalDistribution
from searches import SAMPLED_ONLY, TWO_PRESETS, Scripted, Watch, file_of, search_in
from stored_script import script_trial, study_of_script
from stored_study import study_of, trial_of

from face3d_tune.cli.result_tables import before_and_after
from face3d_tune.errors import ConfigError
from face3d_tune.search.added_trials import enqueue_tried
from face3d_tune.search.trial_queue import TrialQueue
from face3d_tune.search.tried_config import tried_config
from face3d_tune.storage.database import Storage
from face3d_tune.study.space import to_stored
from face3d_tune.study.trials import origin


def one_epoch(task, number):
    return 0.5, "finished"


def tried(place, *words):
    answer = call("try", *words, cwd=place, FACE3D_TUNE_STORAGE="sqlite:///studies.db")
    return answer.code, answer.out + answer.err


@pytest.fixture
def search(sqlite, tmp_path, data):
    return search_in(sqlite, file_of(tmp_path, SAMPLED_ONLY), data, epochs=1)


def test_the_typed_values_are_trained_and_the_sampler_chooses_the_others(search, tmp_path):
    code, said = tried(tmp_path, "lr=3e-4")
    assert (code, said) == (
        0,
        "queued as trial 0 of study 'quick': lr = 0.0003\nthe sampler chooses use_pose_attention\n"
        "no search of this study runs: the next `face3d-tune run` trains it\n",
    )
    watch = Watch()
    search.run(2, watch, slots=Scripted(1, one_epoch))
    first, second = search.study.trials
    assert (first.params["lr"], set(first.params)) == (3e-4, {"lr", "use_pose_attention"})
    assert (first.user_attrs["tried"], first.user_attrs["preset"], origin(first)) == (
        ["lr=3e-4"],
        None,
        "tried by hand",
    )
    assert origin(second) == "sampled"
    assert [name for _, name, _ in watch.started] == ["tried by hand", None]


def test_the_table_of_run_has_a_line_for_it(search, tmp_path, capsys):
    tried(tmp_path, "lr=3e-4")
    search.run(2, Watch(), slots=Scripted(1, one_epoch))
    before_and_after(search.study)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tried by hand")]
    assert line.split()[3:5] == ["0", "3.0e-04"]


def test_a_search_that_runs_in_the_same_sqlite_file_trains_it_next(search, sqlite_url, tmp_path):
    """The search holds the right to search in the file; `try` needs it not."""
    answers = []

    def play(task, number):
        if task.number == 0 and not answers:  # from another thread, whose connection knows nothing of this one's
            other = threading.Thread(target=lambda: answers.append(tried(tmp_path, "lr=2e-4")))
            other.start()
            other.join()
        return 0.5, "finished"

    with Storage.parse(sqlite_url).searching():
        search.run(3, Watch(), slots=Scripted(1, play))
    ((code, said),) = answers
    assert (code, said.splitlines()[-1]) == (0, "a running search trains it as soon as a slot is free")
    assert [origin(trial) for trial in search.study.trials] == ["sampled", "tried by hand", "sampled"]
    assert search.study.trials[1].params["lr"] == 2e-4


def test_workers_on_postgresql_share_what_was_tried(postgres_tables_url, tmp_path, data):
    with Storage.parse(postgres_tables_url).opened() as first, Storage.parse(postgres_tables_url).opened() as second:
        file = file_of(tmp_path, SAMPLED_ONLY)
        workers = [search_in(storage, file, data, epochs=1) for storage in (first, second)]
        for worker in workers:
            worker.queue.budget = 4
            worker.worker.silence = 3600.0  # however busy this machine is
            worker.worker.beat()
        running = workers[0].queue.ask()
        for rate in (1e-4, 2e-4, 3e-4):  # queued while a trial runs
            words = ("try", f"lr={rate}", "--storage", postgres_tables_url)
            assert call(*words, cwd=tmp_path).code == 0
        taken = [workers[place].queue.ask() for place in (1, 0, 1)]
        assert workers[0].queue.ask() is None
        assert [trial.number for trial in (running, *taken)] == [0, 1, 2, 3]
        stored = workers[0].study.trials[1:]
        assert [trial.system_attrs["fixed_params"] for trial in stored] == [{"lr": rate} for rate in (1e-4, 2e-4, 3e-4)]


def test_a_trial_that_the_budget_does_not_reach_is_said_to_wait(search, tmp_path):
    search.run(1, Watch(), slots=Scripted(1, one_epoch))
    _, said = tried(tmp_path, "lr=3e-4")
    assert said.endswith("the budget of 1 trials does not reach it: `face3d-tune run --trials 2` trains it\n")


def test_other_values_come_from_a_preset_or_a_trial(sqlite, tmp_path, data):
    search = search_in(sqlite, file_of(tmp_path, TWO_PRESETS), data, epochs=1)
    search.enqueue_presets()
    search.run(1, Watch(), slots=Scripted(1, one_epoch))
    study, (baseline, *_) = search.study, search.study.trials
    overrides = baseline.user_attrs["overrides"]
    assert overrides  # values that the study does not search
    for how in ({"preset": "baseline"}, {"like": 0}):
        config = tried_config(study, ["lr=5e-4"], **how)
        assert (config.params, config.overrides, config.sampled) == ({"lr": 5e-4}, overrides, [])
    assert tried_config(study, [], like=0).params == baseline.params
    assert tried_config(study, ["weight_decay=0.5"], like=0).overrides == {**overrides, "weight_decay": 0.5}


def test_a_choice_and_a_switch_may_be_typed_in_any_way_that_means_them():
    settings = study_of().user_attrs["settings"]
    space = {"nhead": CategoricalDistribution([2, 4]), "use_pose_attention": CategoricalDistribution([False, True])}
    study = study_of(settings={**settings, "space": to_stored(space)})
    words = ["--nhead=4.0", "use-pose-attention = TRUE", "use_spatial_attention=True", "optimizer=adamw"]
    config = tried_config(study, words)
    assert config.params == {"nhead": 4, "use_pose_attention": True}
    assert config.overrides == {"use_spatial_attention": True, "optimizer": "adamw"}
    for wrong in ("nhead=3", "nhead=four", "use_pose_attention=1", "use_spatial_attention=1", "optimizer=adamm"):
        with pytest.raises(ConfigError, match=wrong.partition("=")[0]):
            tried_config(study, [wrong])


@pytest.mark.parametrize(
    ("words", "line", "hint"),
    [
        (["lr=5"], "lr = 5 is outside the search space, 1e-05 … 0.1 (log)", "to try it, widen space.lr"),
        (["lr=nan"], "lr = nan is outside the search space, 1e-05 … 0.1 (log)", "to try it"),
        (["lr=fast"], "lr = 'fast' has the wrong type; expected a number", "see"),
        (["pose_unit=turns"], "pose_unit = turns is outside the search space, degrees | radians", "to try it"),
        (["lerning_rate=1"], "study 'faces' has no parameter 'lerning_rate'", "it searches lr, pose_unit"),
        (["dropuot=0.1"], "study 'faces' has no parameter 'dropuot'; did you mean 'dropout'?", "it searches"),
        (["dropout=2"], "dropout = 2.0 is out of range; expected at least 0 and below 1", "see"),
        (["nhead=4"], "nhead is fixed at 8 in study 'faces'", "it searches lr, pose_unit"),
        (["epochs=5"], "epochs is the same in every trial of study 'faces'", "it searches"),
        (["batch_size=64"], "batch_size = 64 is more than the 42 training pairs", "see"),
        (["lr"], "'lr' is no value of a parameter; expected NAME=VALUE, e.g. lr=3e-4", "see"),
        (["--preset", "recomended"], "study 'faces' has no preset 'recomended'; did you mean 'recommended'?", "it has"),
        (["--like", "9"], "study 'faces' has no trial 9", "it holds 0 to 0"),
        (["--like", "0", "--preset", "recommended"], "--preset and --like both give the other values", "see"),
        ([], "nothing to try; expected NAME=VALUE, --preset NAME or --like TRIAL", "see"),
    ],
)
def test_what_cannot_be_tried_is_refused_in_one_line_and_nothing_is_queued(sqlite, tmp_path, words, line, hint):
    settings = study_of().user_attrs["settings"]
    study = study_of(
        trial_of("COMPLETE", 0.5, preset="recommended"), storage=sqlite, settings={**settings, "fixed": {"nhead": 8}}
    )
    code, said = tried(tmp_path, *words)
    first, second = said.splitlines()
    assert (code, first.startswith(f"error: {line}"), second.startswith(f"hint: {hint}")) == (2, True, True), said
    assert len(study.get_trials(deepcopy=False)) == 1


def test_a_study_of_a_script_is_tried_in_the_same_way(sqlite, tmp_path):
    study = study_of_script(
        script_trial("COMPLETE", [0.5], preset="default", overrides={"batch_size": 8, "workers": 2}), storage=sqlite
    )
    assert tried(tmp_path, "margin=0.5", "batch_size=32")[0] == 0  # fixed, but a preset sets it
    queued = study.trials[-1]
    assert queued.system_attrs["fixed_params"] == {"margin": 0.5}
    assert queued.user_attrs["overrides"] == {"batch_size": 32}
    assert tried(tmp_path, "margn=0.5") == (
        2,
        "error: study 'triplet' has no parameter 'margn'; did you mean 'margin'?\n"
        "hint: it searches lr, margin, optimizer\n",
    )


def test_a_list_is_tried_only_as_a_preset_or_a_trial_has_it():
    sizes = {"sizes": [8, 16]}
    study = study_of_script(script_trial("COMPLETE", [0.5], preset="deep", overrides=sizes))
    with pytest.raises(ConfigError, match="sizes takes a list, which cannot be typed here") as caught:
        tried_config(study, ["sizes=8"])
    assert caught.value.hint == "use --like or --preset"
    assert tried_config(study, ["lr=0.01"], preset="deep").overrides == sizes


def test_a_retry_of_it_keeps_its_name(sqlite):
    study = study_of(storage=sqlite)
    queue = TrialQueue(study, sqlite)
    queue.budget = 1
    enqueue_tried(study, sqlite.engine, {"lr": 1e-3}, {}, ["lr=1e-3"])
    queue.requeue(queue.ask(), "interrupted")
    assert [origin(trial) for trial in study.trials] == ["tried by hand"] * 2
