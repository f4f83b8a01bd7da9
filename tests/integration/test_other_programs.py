"""What other programs put into a study or a storage: it fails once or counts nowhere, is named, and ends nothing."""

import itertools
import json
import math
import threading
import warnings

import optuna
import pytest
from command_line import call
from conftest import QUICK_STUDY
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages._rdb import models
from optuna.trial import TrialState, create_trial
from searches import DISTINCT, SAMPLED_ONLY, Scripted, Watch, file_of, search_in, states
from served import ask as asked
from served import serving
from stored_study import study_of, trial_of

from face3d_tune.errors import StudyError
from face3d_tune.search.added_trials import add_imported
from face3d_tune.search.pruning import CompletedTrials
from face3d_tune.search.retries import lineage
from face3d_tune.storage.database import Storage
from face3d_tune.study.causes import cause
from face3d_tune.study.lookup import pick_trial, read_trial
from face3d_tune.study.other_programs import is_foreign
from face3d_tune.study.status import summary
from face3d_tune.study.trials import best_trial, completed_trials, count_states, preset_rows

LR = {"lr": FloatDistribution(1e-5, 3e-3, log=True)}
QUICK = "quick.toml"


@pytest.fixture(autouse=True)
def _quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture
def search(storage, tmp_path, data):
    """A search without presets, on either database."""
    return search_in(storage, file_of(tmp_path, SAMPLED_ONLY), data)


def one_epoch(task, number):
    """A training whose cosine follows from its learning rate, and is below 0.5."""
    return 0.5 - abs(math.log10(task.config.lr) + 4) / 10, "finished"


def ran(search, trials, watch=None, count=1):
    watch = watch or Watch()
    search.run(trials, watch, slots=Scripted(count, one_epoch))
    return watch


def outside(search):
    """The study as a program opens it that knows nothing of face3d-tune."""
    return optuna.load_study(study_name=search.study.study_name, storage=search.study._storage)


def add(study, value=0.99, params=None, state=TrialState.COMPLETE, **attrs):
    """Add a finished trial as `study.add_trial` does."""
    params = {"lr": 1e-3} if params is None else params
    held = {name: LR.get(name, FloatDistribution(-1e9, 1e9)) for name in params}
    curve = dict.fromkeys(range(1, 5), value)
    made = create_trial(
        state=state,
        value=value if state != TrialState.FAIL else None,
        params=params,
        distributions=held,
        user_attrs=attrs,
        intermediate_values=curve,
    )
    study.add_trial(made)
    return study._storage.get_n_trials(study._study_id) - 1


# Queued from outside

IMPOSSIBLE = {
    "a choice that there is not": ({"use_pose_attention": "yes"}, {}, "use_pose_attention = 'yes' has the wrong type"),
    "0 on a logarithmic scale": ({"lr": 0}, {}, "lr = 0 is outside the search space, 1e-05 … 0.003 (log)"),
    "NaN": ({"lr": math.nan}, {}, "lr = nan is outside the search space, 1e-05 … 0.003 (log)"),
    "infinity": ({"lr": math.inf}, {}, "lr = inf is outside the search space"),
    "text": ({"lr": "fast"}, {}, "lr = 'fast' has the wrong type; expected a number"),
    "text of a number": ({"lr": "0.001"}, {}, "lr = '0.001' has the wrong type; expected a number"),
    "out of range": ({"lr": 0.5}, {}, "lr = 0.5 is outside the search space, 1e-05 … 0.003 (log)"),
    "true for a number": ({"lr": True}, {}, "lr = True has the wrong type; expected a number"),
    "nothing": ({"lr": None}, {}, "lr = None has the wrong type; expected a number"),
    "a list": ({"use_pose_attention": [True]}, {}, "use_pose_attention = [True] has the wrong type"),
    "1 for true": ({"use_pose_attention": 1}, {}, "use_pose_attention = 1 has the wrong type"),
    "more than a float holds": (
        {"lr": 10**400},
        {},
        "lr is a whole number that no float can hold; expected at most 1e308",
    ),
    "overrides that are none": ({"lr": 1e-3}, {"overrides": 7}, "overrides = 7 cannot be used"),
    "unknown overrides": ({"lr": 1e-3}, {"overrides": {"speed": 9}}, "overrides = {'speed': 9} cannot be used"),
    "a seed that is none": ({"lr": 1e-3}, {"seed": "x"}, "seed = x cannot be used; expected a whole number of at"),
    "a preset without a name": ({"lr": 1e-3}, {"preset": ["a"], "near": {}}, "preset = ['a'] cannot be used"),
}


def test_what_cannot_be_trained_fails_once_with_its_cause_and_the_search_goes_on(sqlite, tmp_path, data):
    search = search_in(sqlite, file_of(tmp_path, SAMPLED_ONLY), data)
    for params, attrs, _ in IMPOSSIBLE.values():
        outside(search).enqueue_trial(params, user_attrs=attrs)
    odd = {key: ["odd"] for key in ("ordinal", "deaths", "lineage", "retry_of", "run_id")}
    outside(search).enqueue_trial({"lr": 2e-3}, user_attrs=odd)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none of Optuna's own reaches the terminal
        ran(search, 3)
        search.enqueue_presets()
        search.retention.tidy()
    trials = search.study.trials
    assert len(trials) == len(IMPOSSIBLE) + 3
    for trial, (_, attrs, said) in zip(trials, IMPOSSIBLE.values(), strict=False):
        assert trial.state == TrialState.FAIL
        assert trial.user_attrs["error"].startswith(said)
        assert len(trial.user_attrs["error"]) < 200
        assert cause(trial) == ("error" if "overrides" in attrs else "outside")
        assert "put_back" not in trial.user_attrs
    assert [trial.state for trial in trials[len(IMPOSSIBLE) :]] == [TrialState.COMPLETE] * 3
    assert trials[len(IMPOSSIBLE)].params["lr"] == 2e-3
    assert (search.finished(), lineage(trials[len(IMPOSSIBLE)])) == (3, len(IMPOSSIBLE))


def test_a_queued_trial_that_can_be_trained_is_and_names_that_the_study_does_not_have_are_noted(search):
    study = outside(search)
    study.enqueue_trial({"lr": 3e-3, "use_pose_attention": True}, user_attrs={"seed": 7})
    study.enqueue_trial({"lr": 1e-4, "use_pose_attenton": True, "n" * 10**6: 1})
    watch = ran(search, 2)
    first, second = search.study.trials
    assert (first.params, first.user_attrs["seed"]) == ({"lr": 3e-3, "use_pose_attention": True}, 7)
    assert second.params["lr"] == 1e-4
    (note,) = watch.notes
    expected = "trial 1: this study does not search use_pose_attenton (did you mean use_pose_attention?), nnn"
    assert note.startswith(expected)
    assert note.endswith("…; the trial trains without")
    assert len(note) < 250


SPECIAL = ("NaN", "infinity", "more than a float holds", "a list", "unknown overrides")  # to a database, too


def test_two_workers_on_postgresql_are_not_stopped_by_what_others_queued(postgres_tables_url, tmp_path, data):
    url, file, errors = postgres_tables_url, file_of(tmp_path, SAMPLED_ONLY), []
    ended = {}

    def work(name):
        try:
            with Storage.parse(url).opened() as opened:
                search = search_in(opened, file, data)
                started.wait(60)
                ended[name] = ran(search, 4, count=2).ended
        except BaseException as error:
            errors.append(error)

    started = threading.Barrier(3)
    threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    with Storage.parse(url).opened() as opened:
        study = outside(search_in(opened, file, data))
        for params, attrs, _ in map(IMPOSSIBLE.get, SPECIAL):
            study.enqueue_trial(params, user_attrs=attrs)
        add(study, 0.99)
        started.wait(60)
        for thread in threads:
            thread.join(120)
        assert (errors, [thread.is_alive() for thread in threads]) == ([], [False, False])
        own = [trial for trial in study.trials if not is_foreign(trial)]
        held = [trial.state.name for trial in own]
        assert (held.count("COMPLETE"), held.count("FAIL"), len(held)) == (4, len(SPECIAL), len(SPECIAL) + 4)
        failed = [trial.user_attrs["error"] for trial in own if trial.state == TrialState.FAIL]
        assert all(map(str.startswith, failed, (IMPOSSIBLE[name][2] for name in SPECIAL)))
        assert sum(map(len, ended.values())) == len(own)
        assert best_trial(study).value < 0.5


# Finished elsewhere


def strangers(study):
    """Trials that other programs finish, in each way that Optuna has; their numbers."""
    before = len(study.get_trials(deepcopy=False))
    add(study, 0.99)
    add(study, 0.98, {})
    add(study, 123.0, {"speed": 7.0}, config="theirs", folds=5, cosine_by_yaw=[1], stop="early", lineage="x")
    add(study, 0.97, state=TrialState.PRUNED)
    add(study, state=TrialState.FAIL)
    asked = study.ask(LR)
    study.tell(asked, 0.96)
    study.optimize(lambda trial: trial.suggest_float("lr", 1e-5, 3e-3, log=True) + 5, n_trials=2)
    study.optimize(lambda trial: math.nan, n_trials=1)
    return range(before, len(study.get_trials(deepcopy=False)))


def test_trials_of_other_programs_count_nowhere(search):
    study = outside(search)
    ran(search, 1)
    numbers = strangers(study)
    assert len(numbers) == 9
    watch = ran(search, 3)
    assert len(watch.ended) == 2
    assert search.finished() == 3
    trials = search.study.trials
    own = [trial.number for trial in trials if not is_foreign(trial)]
    assert [trial.number for trial in trials if is_foreign(trial)] == list(numbers)
    assert best_trial(search.study).number in own
    assert {trial.number for trial in completed_trials(search.study)} == set(own)
    assert count_states(search.study) == {"complete": 3, "pruned": 0, "fail": 0, "running": 0, "waiting": 0}
    held = summary(search.study)
    assert (held["by_hand"], held["imported"], sum(held["causes"].values())) == (9, 0, 0)
    assert held["best_value"] <= 0.5
    assert search.retention._ranked() == [f"trial-{trial.number}" for trial in completed_trials(search.study)]
    search.retention.note = pytest.fail
    search.retention.tidy()
    assert {trial.number for trial in CompletedTrials(search.study).get_trials()} == set(own)


def test_a_value_of_another_program_does_not_reach_the_target(sqlite, tmp_path, data):
    search = search_in(sqlite, file_of(tmp_path, SAMPLED_ONLY), data, target=0.9)
    add(outside(search), 0.99)
    assert not search.target_reached()
    assert len(ran(search, 2).ended) == 2


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])  # (CMA-ES draws by the trial's number)
def test_a_search_tries_the_same_with_trials_of_other_programs_beside_it_as_without(sqlite, tmp_path, data, sampler):
    options = "" if sampler == "random" else "n_startup_trials = 2"
    text = SAMPLED_ONLY.replace('name = "tpe"\nn_startup_trials = 2', f'name = "{sampler}"\n{options}')
    file = file_of(tmp_path, text)
    tried = []
    for name in ("alone", "beside others"):
        search = search_in(sqlite, file, data, name=name)
        for total in (2, 4):
            if name != "alone":
                strangers(outside(search))
            ran(search, total)
        tried.append([trial.params for trial in search.study.trials if not is_foreign(trial)])
    assert tried[0] == tried[1]
    assert len(tried[0]) == 4


@pytest.mark.parametrize("pruner", ["median", "percentile", "hyperband", "extrapolation", "shape"])
def test_a_curve_of_another_program_prunes_nothing(sqlite, tmp_path, data, pruner):
    options = {"percentile": "percentile = 50.0\nn_startup_trials = 1", "median": "n_startup_trials = 1"}
    text = SAMPLED_ONLY + f'[pruner]\nname = "{pruner}"\n{options.get(pruner, "")}\n'
    search = search_in(sqlite, file_of(tmp_path, text), data, epochs=4)
    for _ in range(6):
        add(outside(search), 0.99)
    slots = Scripted(1, lambda task, number: (0.1, "finished" if number == 4 else None))
    search.run(1, Watch(), slots=slots)
    assert [trial.state.name for trial in search.study.trials][6:] == ["COMPLETE"]


def test_a_preset_that_another_program_took_from_the_queue_is_tried_all_the_same(sqlite, quick, data):
    search = search_in(sqlite, quick, data)
    search.enqueue_presets()
    study = outside(search)
    study.tell(study.ask(LR), 0.99)  # the baseline
    search.enqueue_presets()
    ran(search, 4)
    rows = {row.name: row.trial for row in preset_rows(search.study) if row.same_as is None}
    assert sorted(rows) == sorted(DISTINCT)
    assert {trial.state for trial in rows.values()} == {TrialState.COMPLETE}
    assert max(trial.value for trial in rows.values()) <= 0.5


def test_what_another_program_asked_for_is_left_to_it_and_the_search_ends_without(search):
    study = outside(search)
    theirs = study.ask(LR)
    ran(search, 2)
    assert states(search.study) == ["RUNNING", "COMPLETE", "COMPLETE"]
    assert count_states(search.study)["running"] == 0
    study.tell(theirs, 0.99)
    assert search.study.trials[0].value == 0.99
    assert search.finished() == 2


@pytest.mark.parametrize("state", ["COMPLETE", "FAIL"])
@pytest.mark.parametrize("last", [False, True], ids=["before an epoch", "before its last epoch is told"])
def test_a_trial_that_another_program_ends_is_said_to_be_that_and_another_one_is_trained(search, state, last):
    study, watch = outside(search), Watch()

    def end(number, result):
        if number == 0 and result.epoch == (2 if last else 1):
            study.tell(0, 0.99 if state == "COMPLETE" else None, state=TrialState[state])

    watch.epoch_ended = end
    slots = Scripted(1, lambda task, number: (0.1, "finished" if number == 2 else None))
    search.run(2, watch, slots=slots)
    assert watch.lost == [0]
    assert (watch.notes, watch.reasons) == ([], ["ended from outside"])
    assert states(search.study) == [state, "COMPLETE", "COMPLETE"]
    assert search.finished() == 2
    assert best_trial(search.study).value == 0.1
    held = summary(search.study)
    assert (held["by_hand"], held["causes"]["outside"]) == ((1, 0) if state == "COMPLETE" else (0, 1))
    assert pick_trial(search.study, 0).number == 0  # its parameters are known


def test_a_stop_leaves_a_trial_that_another_program_has_just_ended_as_it_is(search):
    study, watch, ended = outside(search), Watch(), []

    def end(number, result):
        if not ended:
            study.tell(0, 0.99)
            ended.append(number)

    watch.epoch_ended, watch.stopping = end, lambda: bool(ended)
    with pytest.raises(KeyboardInterrupt):
        search.run(2, watch, slots=Scripted(1, lambda task, number: (0.1, None)))
    assert (watch.lost, watch.reasons) == ([0], ["ended from outside"])
    assert (states(search.study), search.study.trials[0].value) == (["COMPLETE"], 0.99)


def add_rows(study, trials):
    """Add trials as rows of the database, in one transaction: of each its state, attributes and parameters."""
    lr = optuna.distributions.distribution_to_json(LR["lr"])
    with study._storage._backend.scoped_session() as session:
        for number, (state, attrs, params) in enumerate(trials):
            held = models.TrialModel(study_id=study._study_id, state=state, number=number)
            session.add(held)
            session.flush()
            made = {"trial_id": held.trial_id}
            session.add_all(models.TrialUserAttributeModel(key=key, value_json="{}", **made) for key in attrs)
            session.add_all(
                models.TrialParamModel(param_name=name, param_value=1e-3, distribution_json=lr, **made)
                for name in params
            )
        session.commit()


def test_trials_counted_in_the_database_are_those_that_are_read(search):
    keys = ("config", "stop_reason", "ordinal", "overrides")
    chosen = [set(itertools.compress(keys, held)) for held in itertools.product((False, True), repeat=4)]
    states = (TrialState[name] for name in ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"))
    add_rows(search.study, itertools.product(states, chosen, ((), ("lr",))))
    own = [trial.state for trial in search.study.trials if not is_foreign(trial)]
    assert len(search.study.trials) == 160
    assert search.queue.counts() == {state: own.count(state) for state in set(own)}
    # Of the 32 of a state: finished with both marks 8; failed with one of three 28; running but for lone parameters 30.
    assert [own.count(TrialState[name]) for name in ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")] == [
        *(8, 8, 28, 30, 32)
    ]


def test_a_parameter_of_another_kind_is_named_instead_of_stopping_every_run(sqlite, tmp_path, data):
    file = file_of(tmp_path, SAMPLED_ONLY)
    search = search_in(sqlite, file, data)
    kinds = {"lr": CategoricalDistribution(["low", "high"])}
    outside(search).add_trial(create_trial(value=0.9, params={"lr": "low"}, distributions=kinds))
    with pytest.raises(StudyError) as caught:
        search_in(sqlite, file, data)
    assert caught.value.message == (
        "trial 0 of study 'quick', which another program added, holds lr as another kind of parameter than this study; "
        "Optuna takes one kind only"
    )
    assert caught.value.hint == "start another study with --study-name NEW"


# At the command line


@pytest.fixture(scope="module")
def place(tmp_path_factory, data_folder):
    """A folder with a study of ours in which others left trials, and with studies of others."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / QUICK).write_text(QUICK_STUDY.replace("batch_size = 8", "batch_size = 20"), encoding="utf-8")
    url = f"sqlite:///{(folder / 'face3d_tune.db').as_posix()}"
    with Storage.parse(url).opened(create=True) as opened:
        several = optuna.create_study(study_name="several", storage=opened, directions=["minimize", "maximize"])
        several.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0), n_trials=2)
        loss = optuna.create_study(study_name="loss", storage=opened)
        loss.set_user_attr("settings", "theirs")
        loss.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
        optuna.create_study(study_name="empty", storage=opened, direction="maximize").set_user_attr("from", "x")
    run = ("run", "--study", QUICK, "--data-dir", data_folder, "--trials", 4, "--device", "cpu")
    first = call(*run, cwd=folder)
    assert first.code == 0, first.err
    with Storage.parse(url).opened() as opened:
        study = optuna.load_study(study_name="quick", storage=opened)
        strangers(study)
        study.enqueue_trial({"lr": "fast"})
        study.enqueue_trial({"learning_rate": 1e-3})
    again = call(*run[:-3], 5, *run[-2:], cwd=folder)
    assert again.code == 0, again.err
    return folder, url, again


def ask(place, *words):
    answer = call(*words, cwd=place[0])
    assert "Traceback" not in answer.err
    assert "unexpected" not in answer.err
    return answer


def test_a_run_says_what_others_left_and_reaches_its_own_total(place):
    said = place[2].err
    assert "4 of 5 trials done, 9 added by hand" in said
    assert "failed, error: lr = 'fast' has the wrong type; expected a number" in said
    assert "this study does not search learning_rate" in said
    assert "5 of 5 trials finished" in said
    assert "UserWarning" not in said


def test_status_shows_each_study_as_what_it_is(place):
    lines = ask(place, "status").out.splitlines()
    assert lines[1:4] == [
        "study    empty: no trials; made by another program (maximize)",
        "study    loss: 3 complete; made by another program (minimize)",
        "study    quick: 5 complete, 1 fail; 5 of 5 trials finished; 9 more added by hand, not counted",
    ]
    assert lines[-1] == "study    several: 2 complete; made by another program (minimize and maximize)"
    assert sum("best validation cosine" in line for line in lines) == 1
    held = {study["study"]: study for study in json.loads(ask(place, "status", "--json").out)["studies"]}
    assert [study for study, each in held.items() if each["own"]] == ["quick"]
    assert held["several"]["directions"] == ["minimize", "maximize"]
    assert (held["loss"]["best_value"], held["loss"]["states"]["complete"]) == (None, 3)
    assert held["quick"]["best_value"] < 0.95


@pytest.mark.parametrize("words", [("watch",), ("export",), ("train",), ("report",), ("confirm",)])
@pytest.mark.parametrize("study", ["several", "loss", "empty"])
def test_a_command_refuses_a_study_of_another_program_in_one_line(place, words, study):
    answer = ask(place, *words, "--study-name", study)
    assert (answer.code, answer.err.splitlines()[0]) == (2, f"error: study {study!r} was not made by face3d-tune")


@pytest.mark.parametrize("study", ["several", "loss"])
def test_a_run_refuses_a_study_of_another_program_in_one_line(place, data_folder, study):
    words = ("run", "--study", QUICK, "--data-dir", data_folder, "--device", "cpu", "--study-name", study)
    for more in ((), ("--from", "quick")):
        answer = ask(place, *words, *more)
        assert answer.code == 2
        assert f"error: study {study!r} was not made by face3d-tune" in answer.err
    answer = ask(place, *words[:-1], "next", "--from", study)
    assert (answer.code, answer.err.splitlines()[0]) == (2, f"error: study {study!r} was not made by face3d-tune")


def test_watch_doctor_and_copy_take_a_storage_that_holds_more_than_ours(place, tmp_path):
    watched = ask(place, "watch", "--study-name", "quick")
    counted = "5 of 5 trials finished, 0 of them pruned; failed: 1 from outside; best cosine 0."
    assert watched.out.startswith(f"study 'quick': {counted}")
    assert "4 studies; workers searching now: 0" in ask(place, "doctor").out
    copied = ask(place, "copy", place[1], f"sqlite:///{tmp_path / 'copy.db'}")
    assert (copied.code, copied.out.count("copied study")) == (0, 4)


def test_the_best_of_a_study_is_exported_reported_trained_and_confirmed_beside_trials_of_others(place, data_folder):
    with Storage.parse(place[1]).opened() as opened:
        study = optuna.load_study(study_name="quick", storage=opened)
        best = best_trial(study)
        numbers = [trial.number for trial in study.trials if is_foreign(trial)]
    assert f"--lr {best.user_attrs['config']['lr']}" in ask(place, "export", "--study-name", "quick").out
    refused = ask(place, "export", "--study-name", "quick", "--trial", numbers[0])
    assert refused.code == 2
    assert refused.err.splitlines()[0] == (
        f"error: trial {numbers[0]} was added by hand: face3d-tune did not train it and does not know its configuration"
    )
    held = json.loads(ask(place, "report", "quick", "-o", "-", "--format", "json").out)
    assert (held["best"]["trial"], held["by_hand"], held["causes"]["outside"]) == (best.number, 9, 1)
    assert len(held["trials"]) == 5
    for language, said in (("en", "Besides, 9 trials stand"), ("zh", "此外，研究中还有 9 个试验")):
        assert said in ask(place, "report", "quick", "-o", "-", "--format", "md", "--lang", language).out
    words = ("--study-name", "quick", "--data-dir", data_folder, "--device", "cpu")
    trained = ask(place, "train", *words, "--out", "trained")
    assert "on validation: the same" in trained.out
    confirmed = ask(place, "confirm", *words, "--seeds", 1, "--top", 1)
    assert confirmed.code == 0, confirmed.err


def test_an_export_says_of_a_trial_that_was_ended_from_outside_that_its_value_is_not_known(tmp_path, sqlite_url):
    with Storage.parse(sqlite_url).opened(create=True) as opened:
        study = study_of(trial_of("RUNNING"), storage=opened)
        study.tell(0, 0.99)
    words = ("export", "--storage", sqlite_url, "--trial", 0, "--format", "json")
    answer = call(*words, cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert answer.err == "note: trial 0 was ended from outside, so face3d-tune knows no value of it\n"
    assert json.loads(answer.out)


def test_another_stage_begins_with_the_best_of_ours(place, data_folder):
    words = ("run", "--study", QUICK, "--study-name", "next", "--from", "quick", "--trials", 1, "--device", "cpu")
    with Storage.parse(place[1]).opened() as opened:
        best = best_trial(optuna.load_study(study_name="quick", storage=opened)).number
    answer = ask(place, *words, "--data-dir", data_folder)
    assert f"from     quick, trial {best}, cosine" in answer.err
    assert read_trial(Storage.parse(place[1]), "next", None).trial.value < 1
    with Storage.parse(place[1]).opened() as opened:
        optuna.delete_study(study_name="next", storage=opened)


def test_an_import_reads_a_study_with_trials_of_others(sqlite, tmp_path, data):
    search = search_in(sqlite, file_of(tmp_path, SAMPLED_ONLY), data)
    add(outside(search), run_id=["odd"])
    assert add_imported(search.study, search.queue.engine, []) == {}


def test_the_dashboard_shows_what_others_left_as_that(place):
    said = []
    with Storage.parse(place[1]).opened() as opened, serving(opened, say=said.append) as server:
        numbers = map(opened.get_study_id_from_name, ("quick", "several", "loss", "empty"))
        pages = [f"/api/studies/{number}" for number in numbers]
        ours, *others = (json.loads(asked(server, page, Accept_Encoding=None)[2]) for page in pages)
    assert said == []
    assert [study["note"]["body"] for study in others] == [""] * 3
    assert "**Added by hand** 9 more, which face3d-tune did not train" in ours["note"]["body"]
    assert "5 of 5 finished trials (5 complete, 1 fail)" in ours["note"]["body"]
    notes = [trial["note"]["body"] for trial in ours["trials"]]
    assert sum(note.startswith("**Added by hand.**") for note in notes) == 9
    graphs = {each["id"]: json.loads(each["graph_object"]) for each in ours["plotly_graph_objects"]}
    assert max(value for trace in graphs["best-value"]["data"] for value in trace["y"]) < 0.95
