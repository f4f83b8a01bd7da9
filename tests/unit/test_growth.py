"""A search space grows while its study goes on: what is accepted, what old trials become, who takes it up."""

import json
from datetime import datetime

import optuna
import pytest
from command_line import call
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial
from searches import Scripted, Watch, file_of, search_in
from stored_script import script_attrs, searched_script, study_of_script

from face3d_tune.analysis.findings import find, searched
from face3d_tune.cli.result_tables import before_and_after
from face3d_tune.dashboard.notes import study_note
from face3d_tune.errors import StudyError
from face3d_tune.report.render import report
from face3d_tune.search.failed_trials import FailuresAsWorst
from face3d_tune.search.tried_config import tried_config
from face3d_tune.study import study_file
from face3d_tune.study.growth import GrownSpace
from face3d_tune.study.space import to_stored
from face3d_tune.study.trials import REQUEUED

STUDY = """
[presets.first]
lr = 5e-4
[presets.second]
lr = 2e-4
[sampler]
name = "tpe"
n_startup_trials = 2
[fixed]
batch_size = 8
nhead = 2
num_layers = 1
weight_decay = 0.01
[space]
lr = { low = 1e-4, high = 1e-3, scale = "log" }
use_pose_attention = [false, true]
"""
LR = FloatDistribution(1e-5, 1e-2, log=True)
DECAY = FloatDistribution(0.0, 0.1)


def one_epoch(task, number):
    return 0.5 + 0.01 * task.number, "finished"


@pytest.fixture
def file(tmp_path):
    return file_of(tmp_path, STUDY)


def test_a_range_grows_and_the_next_run_has_it_without_being_told(sqlite, file, data):
    first = search_in(sqlite, file, data)
    first.enqueue_presets()
    first.run(2, Watch(), slots=Scripted(1, one_epoch))
    search_in(sqlite, file, data, wider={"lr": LR})
    again = search_in(sqlite, file, data)  # the study file has the narrow range still
    assert again.file.space["lr"] == LR
    (growth,) = again.study.user_attrs["settings"]["grown"]
    assert (growth["parameter"], growth["before"]["attributes"]["high"]) == ("lr", 1e-3)
    assert growth["after"]["attributes"]["high"] == 1e-2
    again.run(4, Watch(), slots=Scripted(1, one_epoch))
    trials = again.study.trials
    assert [trial.distributions["lr"] == LR for trial in trials] == [False, False, True, True]
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4


def test_a_study_file_may_have_the_first_the_grown_or_a_range_between(sqlite, tmp_path, file, data):
    search_in(sqlite, file, data)
    for low in (5e-5, 1e-5):
        search_in(sqlite, file, data, wider={"lr": FloatDistribution(low, 1e-3, log=True)})
    for low in ("1e-4", "5e-5", "1e-5"):
        edited = file_of(tmp_path, STUDY.replace("low = 1e-4", f"low = {low}"))
        assert search_in(sqlite, edited, data).file.space["lr"].low == 1e-5
    with pytest.raises(StudyError) as caught:
        search_in(sqlite, file_of(tmp_path, STUDY.replace("low = 1e-4", "low = 2e-4")), data)
    said = "study 'quick' was made with space.lr = 1e-05 … 0.001 (log), now it is 0.0002 … 0.001 (log)"
    assert caught.value.message == said
    assert "--space FILE.toml" in caught.value.hint


def test_a_range_that_is_as_before_is_no_growth(sqlite, file, data):
    before = search_in(sqlite, file, data).study.user_attrs
    search_in(sqlite, file, data, wider={"lr": FloatDistribution(1e-4, 1e-3, log=True)})
    assert search_in(sqlite, file, data).study.user_attrs == before


def test_a_study_file_may_search_what_has_grown_or_fix_it_as_before_but_at_no_other_value(sqlite, tmp_path, file, data):
    search_in(sqlite, file, data)
    search_in(sqlite, file, data, wider={"weight_decay": DECAY})
    grown = STUDY.replace("weight_decay = 0.01\n", "") + "weight_decay = { low = 0.0, high = 0.1 }\n"
    grown = grown.replace("[presets.first]", "[presets.first]\nweight_decay = 0.01")
    grown = grown.replace("[presets.second]", "[presets.second]\nweight_decay = 0.01")
    for text in (STUDY, grown):
        assert search_in(sqlite, file_of(tmp_path, text), data).file.space["weight_decay"] == DECAY
    with pytest.raises(StudyError, match="weight_decay"):
        search_in(sqlite, file_of(tmp_path, STUDY.replace("weight_decay = 0.01", "weight_decay = 0.02")), data)


def test_a_worker_that_runs_takes_it_up_with_its_next_trial(storage, file, data):
    old, notes = search_in(storage, file, data), []

    def play(task, number):
        if task.number == 0:
            search_in(storage, file, data, wider={"lr": LR})  # another worker
        return 0.5, "finished"

    watch = Watch()
    old.run(3, watch, slots=Scripted(1, play))
    notes = [note for note in watch.notes if "grown" in note]
    assert notes == ["the range of lr has grown: 1e-05 … 0.01 (log)"]
    assert [trial.distributions["lr"].high for trial in old.study.trials] == [1e-3, 1e-2, 1e-2]


@pytest.mark.parametrize(
    ("wider", "message"),
    [
        (
            {"lr": FloatDistribution(2e-4, 1e-2, log=True)},
            "study 'quick' searches lr in 0.0001 … 0.001 (log), and 0.0002 … 0.01 (log) does not hold all of it: "
            "ranges only grow",
        ),
        (
            {"lr": FloatDistribution(1e-5, 1e-2)},
            "study 'quick' searches lr in 0.0001 … 0.001 (log), not in 1e-05 … 0.01: "
            "Optuna takes one kind of range in a study",
        ),
        (
            {"use_pose_attention": CategoricalDistribution([True])},
            "study 'quick' searches use_pose_attention in false | true, not in true: "
            "Optuna takes the same choices in all trials of a study",
        ),
        (
            {"weight_decay": FloatDistribution(0.02, 0.1)},
            "the trials of study 'quick' have weight_decay = 0.01, outside 0.02 … 0.1",
        ),
        (
            {"dim_feedforward": IntDistribution(8, 64)},
            "study 'quick' does not say which dim_feedforward its trials have, so it cannot be searched",
        ),
    ],
)
def test_what_is_narrower_or_another_range_is_refused_and_nothing_is_stored(sqlite, file, data, wider, message):
    before = search_in(sqlite, file, data).study.user_attrs
    with pytest.raises(StudyError) as caught:
        search_in(sqlite, file, data, wider={"dropout": FloatDistribution(0.0, 0.5), **wider})
    assert caught.value.message == message
    assert "--study-name NEW" in caught.value.hint
    assert search_in(sqlite, file, data).study.user_attrs == before


def test_a_range_that_no_trial_could_have_is_refused_by_its_name(sqlite, file, data):
    before = search_in(sqlite, file, data).study.user_attrs
    with pytest.raises(study_file.StudyFileError, match="batch_size = 4000 is more than"):
        search_in(sqlite, file, data, wider={"batch_size": IntDistribution(4, 4000)})
    assert search_in(sqlite, file, data).study.user_attrs == before


def test_a_fixed_parameter_is_searched_and_what_was_queued_before_keeps_its_value(sqlite, file, data):
    search = search_in(sqlite, file, data)
    search.enqueue_presets()
    waiting = search.study.trials
    assert [trial.state for trial in waiting] == [TrialState.WAITING] * 2
    # One trial began before, and its worker died: the retry must train with the value that it had.
    search.queue.budget = 4
    begun = search.queue.ask()
    search._begin(begun, None, "scripted", Watch())
    search.queue.requeue(begun, "its worker died")
    later = search_in(sqlite, file, data, wider={"weight_decay": DECAY})
    later.enqueue_presets()
    later.run(3, Watch(), slots=Scripted(1, one_epoch))
    finished = [trial for trial in later.study.trials if not trial.user_attrs.get(REQUEUED)]
    configs = [trial.user_attrs["config"]["weight_decay"] for trial in finished]
    assert configs[:2] == [0.01, 0.01]  # the preset in the queue, and the retry
    assert [trial.distributions.get("weight_decay") == DECAY for trial in finished] == [False, False, True]
    assert all(0 <= value <= 0.1 for value in configs)
    assert "weight_decay" not in later.study.user_attrs["settings"]["fixed"]


def old_and_new(count):
    """Trials with a narrow lr and a fixed weight_decay, as a grown study holds them."""
    narrow = FloatDistribution(1e-4, 1e-3, log=True)
    return [
        create_trial(
            value=0.1 * number,
            params={"lr": 1e-4 * (number + 1)},
            distributions={"lr": narrow},
            user_attrs={"config": {"weight_decay": 0.01}, "stop_reason": "finished"},
        )
        for number in range(count)
    ]


def test_a_config_that_is_tried_like_an_old_trial_has_the_value_of_its_time(sqlite, file, data):
    search = search_in(sqlite, file, data)
    search.run(1, Watch(), slots=Scripted(1, one_epoch))
    study = search_in(sqlite, file, data, wider={"weight_decay": DECAY}).study
    tried = tried_config(study, [], like=0)
    assert tried.sampled == []
    assert tried.params == {**study.trials[0].params, "weight_decay": 0.01}


def test_the_sampler_goes_on_to_choose_all_parameters_together():
    """Optuna by itself would choose each alone, since old and new trials have no equal range."""
    grown = GrownSpace({"lr": LR, "weight_decay": DECAY}, {"weight_decay": 0.05})
    study = optuna.create_study(direction="maximize")
    study.add_trials(old_and_new(5))
    new = create_trial(
        value=0.9,
        params={"lr": 5e-3, "weight_decay": 0.02},
        distributions={"lr": LR, "weight_decay": DECAY},
        user_attrs={"config": {"weight_decay": 0.02}, "stop_reason": "finished"},
    )
    study.add_trial(new)

    def together(grown):
        joint = TPESampler(multivariate=True, n_startup_trials=2, seed=1)
        return FailuresAsWorst(joint, grown=grown).infer_relative_search_space(study, study.trials[-1])

    assert together(None) == {}
    assert together(grown) == {"lr": LR, "weight_decay": DECAY}
    seen = [grown.seen(trial) for trial in study.trials]
    assert [trial.params["weight_decay"] for trial in seen] == [0.01] * 5 + [0.02]  # as each was trained
    assert "weight_decay" not in study.trials[0].params  # what is stored stays as it is


def test_old_trials_have_the_value_of_their_time_in_importances_and_pictures():
    """The trials of a script hold no value of a flag that neither the space nor [fixed] named; its growth does."""
    space = {"lr": LR, "decay": DECAY}
    grown = [{"parameter": "decay", "value": 0.05, "after": to_stored(space)["decay"], "at": "", "by": ""}]
    trials = [
        create_trial(value=0.1, params={"lr": 1e-3}, distributions={"lr": LR}, user_attrs={"config": {"lr": 1e-3}}),
        create_trial(value=0.2, params={"lr": 1e-3, "decay": 0.01}, distributions=space, user_attrs={"config": {}}),
    ]
    columns, values = searched(trials, {"space": to_stored(space), "grown": grown})
    assert columns == {"lr": [1e-3, 1e-3], "decay": [0.05, 0.01]}
    assert values == [0.1, 0.2]


def test_a_trial_that_has_not_begun_stays_open():
    grown = GrownSpace({"weight_decay": DECAY}, {"weight_decay": 0.05})
    waiting = create_trial(state=TrialState.WAITING)
    assert grown.seen(waiting).params == {}


GROWN = "the range of lr grew from 0.0001 … 0.001 (log) to 1e-05 … 0.01 (log) at "


def test_every_command_shows_how_a_space_grew(sqlite, sqlite_url, tmp_path, file, data):
    search_in(sqlite, file, data).run(1, Watch(), slots=Scripted(1, one_epoch))
    study = search_in(sqlite, file, data, wider={"lr": LR, "weight_decay": DECAY}).study
    assert GROWN in call("status", cwd=tmp_path, FACE3D_TUNE_STORAGE=sqlite_url).out
    said = call("status", "--lang", "zh", cwd=tmp_path, FACE3D_TUNE_STORAGE=sqlite_url).out
    assert "从 0.0001 … 0.001 (log) 扩大到 1e-05 … 0.01 (log)" in said
    (row,) = json.loads(call("status", "--json", cwd=tmp_path, FACE3D_TUNE_STORAGE=sqlite_url).out)["studies"]
    assert [each["parameter"] for each in row["grown"]] == ["lr", "weight_decay"]
    found = find(study)
    assert "**Space** the range of lr grew from" in study_note(found)
    english, chinese = (report(found, "md", language, datetime.now().astimezone()) for language in ("en", "zh"))
    assert "grew during the search from 0.0001 … 0.001 (log) to 1e-05 … 0.01 (log)" in english
    assert "was 0.01 in the first trials; since" in english
    assert "的范围从 0.0001 … 0.001 (log) 扩大到" in chinese


@pytest.mark.parametrize("beside", [False, True], ids=["no storage", "another study"])
def test_a_study_that_has_not_begun_has_no_ranges_to_grow(
    tmp_path, data_folder, file, data, sqlite, sqlite_url, beside
):
    if beside:
        search_in(sqlite, file, data)
    (tmp_path / "wider.toml").write_text("[space]\nlr = { low = 1e-6, high = 1e-2, scale = 'log' }\n", encoding="utf-8")
    place = {"FACE3D_TUNE_STORAGE": sqlite_url} if beside else {}
    answer = call("run", "--space", "wider.toml", "--data-dir", data_folder, cwd=tmp_path, **place)
    assert (answer.code, "study 'default' has not begun" in answer.err) == (2, True)
    assert "hint: begin it with --study wider.toml" in answer.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "wider.toml: [space] is empty"),
        ("[space]\nlearning_rte = [1.0]", "wider.toml: space.learning_rte is unknown"),
        ("[space]\nlr = 3", "wider.toml: space.lr = 3 is not a range"),
        ("space = 3", "wider.toml: space = 3 is not a table"),
    ],
)
def test_only_the_space_of_the_file_is_read_and_its_mistakes_are_named(tmp_path, text, said):
    (tmp_path / "wider.toml").write_text(f"{text}\n", encoding="utf-8")
    with pytest.raises(study_file.StudyFileError) as caught:
        study_file.read_space(tmp_path / "wider.toml")
    assert said in caught.value.message


def test_the_rest_of_a_study_file_is_not_read(tmp_path):
    (tmp_path / "wider.toml").write_text(STUDY, encoding="utf-8")
    assert list(study_file.read_space(tmp_path / "wider.toml")) == ["lr", "use_pose_attention"]


def test_a_table_of_a_script_has_the_value_of_a_flag_before_it_was_searched(capsys):
    settings = script_attrs()["settings"]
    space = {**settings["space"], **to_stored({"decay": DECAY})}
    grown = [{"parameter": "decay", "value": 0.05, "after": space["decay"], "at": "2026-01-31T12:00:00Z", "by": "pc:7"}]
    study = study_of_script(*searched_script(), settings={**settings, "space": space, "grown": grown})
    before_and_after(study)
    assert "0.05" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("best trial"))
    assert json.loads(report(find(study), "json", "en", datetime.now().astimezone()))["best"]["config"]["decay"] == 0.05
