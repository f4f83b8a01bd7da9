"""`run --like`: the best configs of a study on other data are first trials, once, in the space of this study."""

import io
import json
from datetime import datetime
from types import SimpleNamespace

import pytest
from command_line import call
from own_script import write_script
from searches import Scripted, Watch, file_of, search_in
from stored_script import script_trial, study_of_script
from stored_study import study_of, trial_of

from face3d_tune.analysis.findings import find
from face3d_tune.cli.console import Console
from face3d_tune.cli.result_tables import before_and_after
from face3d_tune.cli.run_heading import introduce
from face3d_tune.cli.run_output import JsonView
from face3d_tune.config import TrialConfig
from face3d_tune.errors import StudyError
from face3d_tune.report.render import report
from face3d_tune.script.study_file import read as read_script_study
from face3d_tune.search.run_search import OpenSearch
from face3d_tune.storage.database import Storage
from face3d_tune.storage.study_names import named_elsewhere
from face3d_tune.study.trials import origin
from face3d_tune.study.winners import winners_of

STUDY = """
[presets.mine]
lr = 1e-3
pose_unit = "degrees"
[sampler]
name = "random"
[fixed]
batch_size = 8
nhead = 2
num_layers = 1
[space]
lr = { low = 1e-4, high = 1e-2, scale = "log" }
pose_unit = ["degrees", "radians"]
"""


def stored_at(path, *trials, name="faces", **attrs):
    url = f"sqlite:///{path.as_posix()}"
    with Storage.parse(url).opened(create=True) as storage:
        study_of(*trials, storage=storage, name=name, **attrs)
    return url


def other(tmp_path):
    """Winners: 4, the preset of this study; 2; 5, which has 2's config; 1 with its lr out of range; 0; then 3."""
    return stored_at(
        tmp_path / "other.db",
        trial_of("COMPLETE", 0.5, lr=4e-3),
        trial_of("COMPLETE", 0.6, lr=5e-2),
        trial_of("COMPLETE", 0.8, lr=2e-3, pose_unit="radians"),
        trial_of("COMPLETE", 0.4, lr=6e-3),
        trial_of("COMPLETE", 0.9, lr=1e-3),
        trial_of("COMPLETE", 0.7, lr=2e-3, pose_unit="radians"),
        trial_of("PRUNED", 0.95, lr=7e-3),
    )


@pytest.fixture
def file(tmp_path):
    return file_of(tmp_path, STUDY)


def winners(typed, file, data, here="sqlite:///here.db", name="quick"):
    bound = file.bind("keypoint", data.feature_size, 2)
    return winners_of(typed, Storage.parse(here), name, bound)


def test_the_best_three_distinct_configs_are_taken_that_no_preset_has(tmp_path, file, data):
    found = winners(other(tmp_path), file, data)
    assert [(each.winner["trial"], each.params) for each in found.trials] == [
        (2, {"lr": 2e-3, "pose_unit": "radians"}),
        (1, {"lr": 1e-2, "pose_unit": "degrees"}),
        (0, {"lr": 4e-3, "pose_unit": "degrees"}),
    ]
    assert found.changed == ["trial 1: lr = 0.05 is outside this space; begins at 0.01"]
    assert str(found) == "faces, trial 2, 1, 0"


def test_a_preset_that_won_keeps_what_it_sets_and_is_no_winner_where_it_is_a_preset_too(tmp_path, file, data):
    held = {"preset": "mine", "overrides": {"weight_decay": 0.5}}
    url = stored_at(tmp_path / "other.db", trial_of("COMPLETE", 0.9, lr=1e-3, **held))
    (winner,) = winners(url, file, data).trials
    assert winner.overrides == {"weight_decay": 0.5}
    file.presets["mine"]["weight_decay"] = 0.5
    assert winners(url, file, data).trials == []


def test_a_value_that_this_space_cannot_hold_is_left_to_the_sampler_and_a_0_stays(tmp_path, data):
    space = '[space]\nnhead = [2, 4]\nweight_decay = { low = 1e-4, high = 1e-1, scale = "log" }\n'
    text = STUDY.replace("nhead = 2\n", "").replace("[space]\n", space)
    file = file_of(tmp_path, text.replace("lr = 1e-3\n", "lr = 1e-3\nnhead = 2\nweight_decay = 1e-3\n"))
    config = TrialConfig(d_model=16, dim_feedforward=64, lr=4e-3, weight_decay=0.0)
    held = {"config": config.to_dict(), "overrides": {"weight_decay": 0.0}}
    found = winners(stored_at(tmp_path / "other.db", trial_of("COMPLETE", 0.9, lr=4e-3, **held)), file, data)
    (winner,) = found.trials
    assert (winner.params, winner.overrides) == ({"lr": 4e-3, "pose_unit": "degrees"}, {"weight_decay": 0.0})
    assert found.changed == ["trial 0: the sampler chooses nhead, which is 8 there"]


def test_a_config_that_cannot_train_here_is_no_winner(tmp_path, file, data):
    odd = trial_of("COMPLETE", 0.9, lr=2e-3, overrides={"d_model": 15})  # nhead is 2 here
    url = stored_at(tmp_path / "other.db", odd, trial_of("COMPLETE", 0.5, lr=4e-3))
    assert [each.winner["trial"] for each in winners(url, file, data).trials] == [1]


def test_run_says_what_a_start_takes_over_and_what_does_not_compare(sqlite, tmp_path, file, data):
    url = stored_at(tmp_path / "other.db", trial_of("COMPLETE", 0.9, lr=1e-3))  # the preset of this study
    search = search_in(sqlite, file, data)
    config = trial_of("COMPLETE", 0.5).user_attrs["config"]
    before = {"study": "before", "trial": 3, "value": -0.2, "config": config, "objective": "identity"}
    search.study.set_user_attr("from", before)
    few = search.study.user_attrs["kernel_ridge_choice"] | {"centres": 5, "views": 42}
    search.study.set_user_attr("kernel_ridge_choice", few)
    console = Console(file=io.StringIO(), width=200)
    introduce(console, OpenSearch(search, None, "two processes", None, 0, False, winners(url, file, data)))
    lines = console.file.getvalue().splitlines()
    start = lines.index("from     before, trial 3, identity -0.2000")
    assert lines[start + 1] == "         a value of another objective does not compare; its config is a good beginning"
    assert "like     the best of faces are presets of this study" in lines
    assert lines[-2] == "         kernel ridge with 5 of its 42 training views as centres"


def one_epoch(task, number):
    return 0.5 + 0.01 * task.number, "finished"


def test_they_come_after_the_presets_once_however_many_workers_ask(sqlite, tmp_path, file, data, capsys):
    found = winners(other(tmp_path), file, data).trials
    workers = [search_in(sqlite, file, data) for _ in range(2)]
    for worker in (*workers, *workers):
        worker.enqueue_presets(found)
    study = workers[0].study
    assert [origin(trial) for trial in study.trials] == ["mine", *(f"like faces trial {n}" for n in (2, 1, 0))]
    workers[0].run(4, Watch(), slots=Scripted(1, one_epoch))
    workers[1].enqueue_presets(found)
    assert len(study.trials) == 4
    assert [trial.params["lr"] for trial in study.trials] == [1e-3, 2e-3, 1e-2, 4e-3]
    before_and_after(study)
    assert "like faces trial 2" in capsys.readouterr().out
    made = datetime.now().astimezone()
    assert "trial 1 reached 0.5100, like faces trial 2 (0.8000 there)" in report(find(study), "md", "en", made)
    assert "试验 1 达到 0.5100，同 faces 的试验 2（在那里为 0.8000）" in report(find(study), "md", "zh", made)
    (first, *_) = json.loads(report(find(study), "json", "en", made))["like"]
    assert first == {"trial": 1, "value": 0.51, "study": "faces", "of": 2, "there": 0.8}


def test_a_program_learns_which_trials_of_the_other_study_a_search_begins_with(sqlite, tmp_path, file, data):
    found, lines = winners(other(tmp_path), file, data), []
    opened = SimpleNamespace(
        search=search_in(sqlite, file, data),
        winners=found,
        stage=None,
        plan=SimpleNamespace(engine="plain"),
        storage="",
    )
    JsonView(Console(quiet=True), lines.append).opened(opened)
    assert [like["trial"] for like in json.loads(lines[0])["like"]] == [2, 1, 0]


def test_a_study_of_the_same_name_elsewhere_gives_winners_of_its_own(sqlite, tmp_path, file, data):
    first = winners(other(tmp_path), file, data).trials
    url = stored_at(tmp_path / "third.db", trial_of("COMPLETE", 0.8, lr=3e-3), id="another")
    second = winners(url, file, data).trials
    search = search_in(sqlite, file, data)
    search.enqueue_presets(first)
    search.enqueue_presets(second)
    assert len(search.study.trials) == 5


@pytest.mark.parametrize(
    ("typed", "url", "name"),
    [
        ("sqlite:///other.db", "sqlite:///other.db", None),
        ("sqlite:///other.db#faces", "sqlite:///other.db", "faces"),
        ("sqlite:///a#b/other.db", "sqlite:///a#b/other.db", None),
        ("postgresql://me@host/db#stage 1", "postgresql+psycopg://me@host/db", "stage 1"),
        ("faces", "sqlite:///here.db", "faces"),
    ],
)
def test_a_study_elsewhere_is_named_by_its_url_and_its_name(typed, url, name):
    place, found = named_elsewhere(typed, Storage.parse("sqlite:///here.db"))
    assert (str(place), found) == (url, name)


def test_a_study_that_does_not_compare_is_refused(tmp_path, file, data, sqlite_url, sqlite):
    def refusal(typed, **options):
        with pytest.raises(StudyError) as caught:
            winners(typed, file, data, **options)
        return caught.value.message

    study_of_script(script_trial("COMPLETE", [0.5]), storage=sqlite)
    said = "study 'triplet' searches train_3d_triplet.py, this one the built-in trainer: "
    assert refusal(sqlite_url) == f"{said}their parameters do not compare"
    empty = stored_at(tmp_path / "empty.db", trial_of("WAITING"))
    assert refusal(empty) == "study 'faces' has no completed trial yet, so it has no winner"
    own = {"here": other(tmp_path), "name": "faces"}
    assert refusal("faces", **own) == "study 'faces' cannot begin with its own winners"
    assert "no study named 'face'" in refusal(f"{empty}#face")


class ScriptFile:
    """What winners ask of the study file of a script."""

    def __init__(self, space):
        self.space = space

    parameters = ()

    def distinct_presets(self):
        return [], {}

    def exact(self, name, value):
        return value

    def config(self, params, overrides):
        return {**overrides, **params}


def test_winners_of_a_script_are_the_lowest_where_lower_is_better(sqlite, sqlite_url):
    reached = ((0.5, 0.2), (0.3, 0.3), (0.4, 0.4))
    trials = [script_trial("COMPLETE", [loss], direction="minimize", margin=margin) for loss, margin in reached]
    study = study_of_script(*trials, storage=sqlite, direction="minimize")
    space = {"margin": study.trials[0].distributions["margin"]}
    here = Storage.parse("sqlite:///here.db")
    found = winners_of(sqlite_url, here, "mine", ScriptFile(space), script="train_3d_triplet.py")
    assert [each.params for each in found.trials] == [{"margin": 0.3}, {"margin": 0.4}, {"margin": 0.2}]
    with pytest.raises(StudyError, match=r"searches train_3d_triplet\.py, this one train\.py"):
        winners_of(sqlite_url, here, "mine", ScriptFile(space), script="train.py")


def test_a_value_of_another_kind_or_of_no_such_flag_is_left_to_the_sampler(sqlite, sqlite_url, tmp_path):
    """The script there was an earlier copy: its batches had half a row, and it had no switch."""
    write_script(tmp_path / "mine")
    study_of_script(script_trial("COMPLETE", [0.5], config={"batch_size": 16.5}), storage=sqlite)
    text = "[space]\nlr = { low = 1e-4, high = 1e-2 }\nbatch_size = { low = 8, high = 64 }\naugment = [false, true]\n"
    table = '[script]\npath = "mine/train_3d_triplet.py"\nmetric = "Val/CosineSimilarity"\nsource = "json"\n'
    (tmp_path / "mine.toml").write_text(table + 'direction = "maximize"\n' + text, encoding="utf-8")
    file = read_script_study(tmp_path / "mine.toml")
    found = winners_of(sqlite_url, Storage.parse("sqlite:///here.db"), "mine", file, script="train_3d_triplet.py")
    assert [each.params for each in found.trials] == [{"lr": 1e-3}]
    assert found.changed == [
        "trial 0: the sampler chooses batch_size, which is 16.5 there",
        "trial 0: the sampler chooses augment, which is None there",
    ]


def test_run_says_whose_winners_it_tries(tmp_path, data_folder, file):
    url = other(tmp_path)
    words = ("run", "--study", "quick.toml", "--data-dir", data_folder, "--trials", 2, "--epochs", 1, "--slots", 1)
    answer = call(*words, "--like", f"{url}#faces", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert "like     faces, trial 2, 1, 0; after the presets" in answer.err
    assert "like faces trial 2" in answer.out


def test_of_several_studies_elsewhere_one_is_named_after_the_url(tmp_path, file, data):
    url = other(tmp_path)
    with Storage.parse(url).opened() as storage:
        study_of(storage=storage, name="second")
    with pytest.raises(StudyError, match=r"which study\?") as caught:
        winners(url, file, data)
    assert caught.value.hint == f"name one after the URL: {url}#STUDY"
