"""What is added to optuna-dashboard's answers: notes, figures, artifacts, columns; and what is left as it was."""

import json
import re
import shutil
import threading
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import optuna
import optuna_dashboard
import pytest
from served import ask, serving
from served import detail as of_served
from stored_script import script_trial, searched_script, study_of_script
from stored_study import (
    add_trial,
    confirmation_of,
    of_one_person,
    our_study,
    over_folds,
    recognised,
    recognising_people,
    recognition_of,
    rotation_of,
    study_of,
    trial_of,
    without_method,
)

from face3d_tune.analysis.curve import curve_picture
from face3d_tune.analysis.findings import find
from face3d_tune.config import TrialConfig
from face3d_tune.dashboard.additions import Additions
from face3d_tune.dashboard.figures import figures
from face3d_tune.dashboard.notes import study_note, trial_note
from face3d_tune.dashboard.server import make_dashboard
from face3d_tune.errors import ArtifactError, ConfigError
from face3d_tune.storage.artifacts import Artifacts, best_weights, log_of, unique_name
from face3d_tune.storage.database import Storage
from face3d_tune.study.history import History


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """The file of a study: two presets, a better trial, a pruned one and one that failed."""
    path = tmp_path_factory.mktemp("filled") / "studies.db"
    with Storage.parse(f"sqlite:///{path.as_posix()}").opened(create=True) as storage:
        study = our_study(storage, "faces <b>|*", no_model_by_yaw={"0-15": 0.7, "15-45": 0.5, "45-90": None})
        add_trial(study, "COMPLETE", [0.4, 0.6, 0.5], preset="baseline")
        add_trial(study, "COMPLETE", [0.4, 0.58], preset="recommended")
        add_trial(study, "COMPLETE", [0.5, 0.65], pose_unit="radians")
        add_trial(study, "PRUNED", [0.2])
        add_trial(study, "FAIL", [], error="no memory")
    return path


@pytest.fixture
def study(sqlite, sqlite_url, filled):
    """That study, to be changed."""
    shutil.copyfile(filled, Storage.parse(sqlite_url).sqlite_file)
    return optuna.load_study(study_name="faces <b>|*", storage=sqlite)


@pytest.fixture
def served(sqlite, tmp_path):
    """Gives (status, headers, content) of an address of a dashboard, and what it complained of."""
    said = []
    artifacts = Artifacts.parse(str(tmp_path / "kept"))
    with serving(sqlite, artifacts=artifacts, say=said.append, allow_changes=True) as server:

        def get(path, method="GET", content=None):
            data = None if content is None else json.dumps(content).encode()
            request = Request(f"http://127.0.0.1:{server.server_port}{path}", data, method=method)
            request.add_header("Content-Type", "application/json")
            try:
                with urlopen(request, timeout=30) as answer:
                    return answer.status, dict(answer.headers), answer.read()
            except HTTPError as error:
                return error.code, dict(error.headers), error.read()

        get.said, get.artifacts = said, artifacts
        yield get


def detail(served, study, after=0):
    status, _, content = served(f"/api/studies/{study._study_id}?after={after}")
    assert status == 200
    return json.loads(content)


# Notes


def test_the_studys_note_says_goal_data_budget_and_the_best_trial_beside_presets_and_no_model(study):
    note = study_note(find(study))
    assert "without a model it is 0.5000" in note
    assert "12 people" in note
    assert (
        "4 of 50 finished trials (3 complete, 1 pruned, 1 fail) of at most 20 epochs; tpe sampler, median pruner"
        in note
    )
    assert "| no model |  | 0.5000 |  | 0.700 | 0.500 | – |" in note
    assert "| baseline | 0 | 0.6000 | +0.1000 | 0.800 | 0.600 | 0.400 |" in note
    assert "| **best trial** | 2 | 0.6500 | +0.1500 | 0.850 | 0.650 | 0.450 |" in note


def test_the_note_begins_with_what_the_test_people_said(study):
    note = study_note(find(study))
    assert "**Not yet confirmed:** the best value is flattered by having been chosen." in note
    assert "    face3d-tune confirm --study-name 'faces <b>|*'" in note
    study.set_user_attr("confirmation", confirmation_of(looks=2, ridge="worse"))
    note = study_note(find(study))
    first = note.split("\n\n")[1]
    assert first.startswith("**Out of date:**")  # trial 2 is the best here, and was not asked about
    verdict = "trial 12 is better than baseline (the best preset) by 0.0500 (0.0400 to 0.0600); it is better than every"
    assert verdict in note.split("\n\n")[3]
    assert "| baseline | 0.5500 | 0.5400 | 0.6400 |" in note
    assert "| ridge | – | 0.6500 | 0.6600 |" in note
    assert "- worse than ridge by 0.0300 (0.0200 to 0.0400)" in note
    assert "- Evaluation 2 on the test people" in note
    assert "0.0200 of it was luck" in note


def test_the_note_says_what_its_intervals_leave_out(study):
    def details(confirmation):
        study.set_user_attr("confirmation", confirmation)
        return study_note(find(study))

    assert "intervals" not in details(confirmation_of())
    assert (
        "- What 6 test people can show: against baseline a difference of 0.0100 or more (0.01 from about 7"
        in details(confirmation_of())
    )
    assert "- With one seed the intervals leave out how much seeds differ" in details(confirmation_of(seeds=[1]))
    old = details(without_method(confirmation_of()))
    assert "- The intervals are percentile bootstraps of version 0.1.0, too narrow with few people" in old
    assert "trains nothing and computes 95 % intervals" in old
    assert "too few for a verdict against baseline: +0.0500, without an interval" in details(
        of_one_person(confirmation_of())
    )


def test_the_note_says_when_a_simpler_method_wins(study):
    assert "simpler method wins" not in study_note(find(study))  # and an older study has no ridge line at all
    assert "ridge" not in study_note(find(study))
    study.set_user_attr("ridge_by_yaw", {"0-15": 0.8, "15-45": 0.7, "45-90": None})
    study.set_user_attr("ridge_cosine", 0.66)
    note = study_note(find(study))
    assert "without a model it is 0.5000, with ridge regression 0.6600" in note
    assert "| ridge regression |  | 0.6600 |  | 0.800 | 0.700 | – |" in note
    assert "**The simpler method wins:** ridge regression reaches 0.6600, the best trial 0.6500." in note
    study.set_user_attr("kernel_ridge_by_yaw", {"0-15": 0.81, "15-45": 0.72, "45-90": None})
    study.set_user_attr("kernel_ridge_cosine", 0.67)
    note = study_note(find(study))
    assert "with ridge regression 0.6600, with kernel ridge 0.6700" in note
    assert "| kernel ridge |  | 0.6700 |  | 0.810 | 0.720 | – |" in note
    assert "**The simpler method wins:** kernel ridge reaches 0.6700, the best trial 0.6500." in note


def test_recognition_is_drawn_and_noted_with_its_sentence_first(sqlite):
    found = find(recognised(storage=sqlite))
    drawn = traces(figures(found)["recognition"])
    assert list(drawn) == ["pruned", "completed", "best, trial 12", "no model", "ridge", "kernel ridge"]
    assert (drawn["best, trial 12"]["x"], drawn["best, trial 12"]["y"]) == ([0.7], [0.5])
    assert (drawn["ridge"]["x"], drawn["ridge"]["y"]) == ([0.6], [0.7])
    assert (len(drawn["completed"]["x"]), drawn["pruned"]["text"]) == (12, ["trial 13", "trial 14"])
    title, first, *_ = note = study_note(found).split("\n\n")
    assert (title, first[:53]) == ("## faces", "**The best trial raises the cosine, but recognises pe")
    table = next(part for part in note if part.startswith("| recognition"))
    assert table.startswith(
        "| recognition | rank-1 of 3 | rank-1 of 12 | TAR 1 % of 3 | TAR 1 % of 12 | pooled rank-1 of 12 |"
    )
    assert table.endswith("| **best trial** | 0.600 | 0.500 | 0.500 | 0.400 | 0.700 |")


def test_the_note_of_a_confirmation_begins_with_whom_its_winner_recognises_no_better_than(study):
    held = recognising_people(confirmation_of(), no_model="same")
    study.set_user_attr("confirmation", held)
    note = study_note(find(study))
    first, second = note.index("**trial 12 raises the cosine, but is not shown"), note.index("**trial 12 is better")
    assert first < second
    assert "- rank-1 of 12: not distinguishable from no model: +0.0200" in note


def test_a_study_without_recognition_has_no_figure_and_no_line_on_it(study):
    assert "recognition" not in figures(find(study))
    assert "rank-1" not in study_note(find(study)).lower()


def test_kernel_ridge_is_drawn_where_it_is_known(study):
    study.set_user_attr("kernel_ridge_by_yaw", {"0-15": 0.81, "15-45": 0.72, "45-90": None})
    study.set_user_attr("kernel_ridge_cosine", 0.67)
    drawn = figures(find(study))
    for name, ends in (("learning-curves", [1, 3]), ("best-value", [0, 5.0])):
        line = traces(drawn[name])["kernel ridge"]
        assert (line["x"], line["y"]) == (ends, [0.67, 0.67])
    assert traces(drawn["cosine-by-yaw"])["kernel ridge"]["y"] == [0.81, 0.72, None]


def test_a_confirmation_with_kernel_ridge_compares_with_it_first(study):
    study.set_user_attr("confirmation", confirmation_of(kernel_ridge="worse", headline=None))
    note = study_note(find(study))
    assert "trial 12 is worse than kernel ridge by 0.0200 (0.0100 to 0.0300); no preset could be trained" in note
    assert "| kernel ridge | – | 0.6700 | 0.7000 |" in note
    assert "A simpler method wins: trial 12 is worse than kernel ridge (seconds, and no tuning)." in note


def test_the_note_shows_what_all_people_say_in_rotations_beside_what_the_test_people_said(study):
    assert "Cross-validated" not in study_note(find(study))
    study.set_user_attr("confirmation", confirmation_of())
    study.set_user_attr("rotation", rotation_of("uncertain"))
    note = study_note(find(study))
    assert (
        "**Cross-validated:** trial 12: 12 judged people are too few for a verdict against baseline (the best" in note
    )
    assert "best now, which the rotations do not judge" in note  # trial 2 is the best here
    assert note.index("| test people |") < note.index("| all people, judged |")
    assert "- What 12 judged people can show: against baseline no difference, as they are too few" in note
    assert "- Cross-validated, no test: each of 12 people is judged once, in one of 5 rotations" in note
    assert "- The intervals count rotations, not people" in note
    assert note.count("Winner's curse") == 1  # of the confirmation
    assert "With one seed" not in note


def test_what_a_confirmation_stores_is_no_list_of_numbers_beside_the_note(served, study):
    study.set_user_attr("confirmation", confirmation_of())
    study.set_user_attr("rotation", rotation_of())
    study.set_user_attr("confirm:0011223344556677", {"validation": 0.5})
    study.set_user_attr("look:0011223344556677", {"time": "2026-01-02", "command": "face3d-tune judge"})
    study.set_user_attr("no_model_recognition", recognition_of(0.5))
    answer = detail(served, study)
    keys = {attr["key"] for attr in answer["user_attrs"]}
    assert "no_model_cosine" in keys
    assert not [key for key in keys if key.startswith(("confirm", "look", "rotation")) or key.endswith("recognition")]
    assert "trial 12 is better than baseline" in answer["note"]["body"]


def test_a_name_cannot_change_what_a_note_looks_like(study):
    assert "## faces \\<b\\>\\|\\*\n" in study_note(find(study))


def test_a_study_without_a_split_says_that_it_means_nothing_for_people_never_seen(study):
    study.set_user_attr("data", {**study.user_attrs["data"], "split": "none"})
    assert "Measured on the training pairs" in study_note(find(study))


def test_a_young_study_has_a_note_too(sqlite):
    study = our_study(sqlite, "young")
    assert "No trial has completed yet." in study_note(find(study))


def test_a_trials_note_says_why_it_is_notable_and_how_to_train_it(study):
    found = find(study)
    notes = {trial.number: trial_note(found, trial) for trial in found.notable}
    assert sorted(notes) == [0, 1, 2]
    assert notes[2].startswith("**The best trial**")
    assert "Validation cosine 0.6500, +0.1500 against no model; the checkpoint of epoch 2 of 2." in notes[2]
    assert "face3d-tune data convert" in notes[2]  # it is in radians
    assert notes[0].startswith("**The guide's preset baseline**")
    assert "the checkpoint of epoch 2 of 3" in notes[0]


def test_the_note_of_a_runner_up_names_its_poses_and_rate_and_its_input_if_that_is_not_the_view(study):
    add_trial(study, "COMPLETE", [0.63], inputs="kernel")
    add_trial(study, "COMPLETE", [0.61], pose_unit="radians")
    found = find(study)
    first, second = (trial_note(found, trial) for trial in found.runners_up[:2])
    assert first.startswith("**Runner-up 1: kernel input, degrees, lr 1.0e-04**")
    assert second.startswith("**Runner-up 2: radians, lr 1.0e-04**")


def test_the_notes_of_a_study_for_identity_have_its_values_and_gains_and_the_cosine_beside_them(sqlite):
    study = recognised(storage=sqlite)
    study.set_user_attr("settings", study.user_attrs["settings"] | {"objective": "identity"})
    without = recognition_of(0.6, 0.5)
    without["all"]["identity"] = -0.5  # that of every trial is -0.2
    study.set_user_attr("no_model_recognition", without)
    found = find(study)
    note = study_note(found)
    assert "| trial | identity | gain | cosine | 0–15° |" in note
    assert "| no model |  | -0.5000 |  | 0.5000 | 0.800 |" in note
    assert re.search(r"\| \*\*best trial\*\* \| \d+ \| -0.2000 \| \+0.3000 \| 0.\d{4} \|", note)
    first = trial_note(found, found.best)
    assert "Validation identity -0.2000, +0.3000 against no model; the checkpoint of epoch" in first
    assert re.search(r"\. Its cosine 0.\d{4}, \+0.\d{4} against no model\.", first)


def test_a_note_says_what_the_script_cannot_train_and_what_can(sqlite):
    study = our_study(sqlite, "identity")
    config = TrialConfig(d_model=16, dim_feedforward=64, identity_weight=0.3)
    add_trial(study, "COMPLETE", [0.5], config=config.to_dict())
    add_trial(study, "COMPLETE", [0.4], preset="baseline")
    found = find(study)
    best, baseline = (trial_note(found, found.trials[number]) for number in (0, 1))
    assert "# not expressed: identity_weight = 0.3: train_transformer3D/train_3d.py has no --identity_weight\n" in best
    assert "\n# `face3d-tune train` trains all of it\n" in best
    assert "not expressed" not in baseline
    assert "trains all of it" not in baseline


def test_of_several_folds_the_notes_say_the_value_of_each_and_the_table_shows_them(sqlite, served):
    study = our_study(sqlite, "folds")
    study.set_user_attr("settings", study.user_attrs["settings"] | {"folds": 2})
    values = [{"fold": fold, "value": value, "epochs_run": 2} for fold, value in ((1, 0.5), (2, 0.7))]
    add_trial(study, "COMPLETE", [0.4, 0.6], folds=values, epochs_run=4)
    found = find(study)
    assert "on validation people, others in each of 2 folds: the mean over them; without a model" in study_note(found)
    assert "by fold 0.5000, 0.7000; kept is epoch 2 of 2 of fold 1." in trial_note(found, found.best)
    assert figures(found)["learning-curves"]["layout"]["title"]["text"].endswith(", all of fold 1")
    answer = detail(served, study)
    shown = {attr["key"]: attr["value"] for attr in answer["trials"][0]["user_attrs"]}
    assert (shown["cosine fold 1"], shown["cosine fold 2"]) == ("0.5", "0.7")
    assert "folds" not in shown
    assert {"cosine fold 1", "cosine fold 2"} <= {column["key"] for column in answer["union_user_attrs"]}


def test_a_preset_in_training_has_its_state_for_a_value_and_one_that_waits_no_command_yet(study, served):
    add_trial(study, "RUNNING", [], preset="conservative")
    waiting = trial_of("WAITING")
    waiting.set_user_attr("preset", "aggressive")
    study.add_trial(waiting)
    found = find(study)
    assert "| conservative | 5 | running | | | | |" in study_note(found)
    running, queued = (trial_note(found, found.trials[number]) for number in (5, 6))
    assert running.startswith("**The guide's preset conservative**\n\n```")
    assert "Validation" not in running
    assert queued == "**The guide's preset aggressive**"
    names = [[file["filename"] for file in trial["artifacts"]] for trial in detail(served, study)["trials"][5:]]
    assert names == [["command.txt"], []]


# Figures


def traces(figure):
    return {trace["name"]: trace for trace in figure["data"]}


def test_the_learning_curves_are_those_of_best_presets_and_pruned_trials_beside_no_model(study):
    drawn = traces(figures(find(study))["learning-curves"])
    assert list(drawn) == ["pruned (1)", "baseline", "recommended", "best, trial 2", "no model"]
    assert (drawn["baseline"]["x"], drawn["baseline"]["y"]) == ([1, 2, 3], [0.4, 0.6, 0.5])
    assert (drawn["pruned (1)"]["x"], drawn["pruned (1)"]["y"]) == ([1, None], [0.2, None])
    assert (drawn["no model"]["x"], drawn["no model"]["y"]) == ([1, 3], [0.5, 0.5])


def test_progress_is_a_staircase_against_trials_and_against_time(study):
    left, right = (trace for trace in figures(find(study))["best-value"]["data"] if trace["name"] == "best so far")
    assert (left["x"], left["y"], left["line"]["shape"]) == ([1, 3, 4], [0.6, 0.65, 0.65], "hv")
    assert (right["x"], right["y"]) == ([1.0, 3.0, 5.0], [0.6, 0.65, 0.65])  # every trial took a minute
    assert right["xaxis"] == "x2"


def test_the_cosine_by_head_turn_stands_beside_no_model(study):
    drawn = traces(figures(find(study))["cosine-by-yaw"])
    assert list(drawn) == ["no model", "baseline", "recommended", "best, trial 2"]
    assert drawn["no model"]["y"] == [0.7, 0.5, None]
    assert drawn["best, trial 2"]["x"] == ["0–15°", "15–45°", "45–90°"]


def test_importance_is_shown_with_what_chance_gives(sqlite):
    study = our_study(sqlite, "many")
    for number in range(20):
        add_trial(study, "COMPLETE", [0.5 + 0.01 * number], lr=1e-4 * (number + 1))
    figure = figures(find(study))["importance"]
    (bars,) = figure["data"]
    assert bars["y"] == ["lr"]
    assert bars["x"] == [pytest.approx(100 * find(study).importances[0].share)]
    assert figure["layout"]["shapes"][0]["x0"] == pytest.approx(100 * find(study).importances[0].chance)


def test_every_axis_says_what_it_shows_and_in_what(study):
    for figure in figures(find(study)).values():
        assert figure["layout"]["xaxis"]["title"]["text"]
        assert figure["layout"]["title"]["text"]


def test_histories_are_drawn_though_the_dashboard_does_not_hold_them(sqlite, sqlite_url):
    study = our_study(sqlite, "faces")
    for state, value in (("COMPLETE", 0.6), ("PRUNED", 0.3), ("COMPLETE", 0.7)):
        trial = trial_of(state, value, preset=None if study.trials else "baseline")
        trial.intermediate_values = {1: 0.1}  # so that only the history has the curve
        study.add_trial(trial)
    found = find(study)
    whole = {name: json.loads(json.dumps(figure)) for name, figure in figures(found).items()}
    assert all(len(trace["y"]) > 1 for trace in whole["learning-curves"]["data"])
    with Storage.parse(sqlite_url).opened() as opened, serving(opened) as made:
        answer, _ = of_served(made)
        drawn = {figure["id"]: json.loads(figure["graph_object"]) for figure in answer["plotly_graph_objects"]}
        assert drawn == whole
        held = optuna.load_study(study_name="faces", storage=opened).get_trials()
        assert [trial.system_attrs for trial in held] == [{}, {}, {}]
        for trial in answer["trials"][::2]:
            (file,) = (file for file in trial["artifacts"] if file["filename"] == "learning-curve.svg")
            _, _, picture = ask(made, f"/artifacts/1/{trial['trial_id']}/{file['artifact_id']}")
            best_epoch = found.trials[trial["number"]].user_attrs["best_epoch"]
            expected = curve_picture(History.of(found.trials[trial["number"]]), best_epoch, found.no_model)
            assert picture.decode() == expected
            assert "Loss by epoch" in expected


def test_a_study_without_trials_has_no_figures(sqlite):
    assert figures(find(our_study(sqlite, "young"))) == {}


# What the dashboard answers


def test_a_study_is_answered_with_note_figures_and_artifacts(study, served):
    answer = detail(served, study)
    assert answer["note"] == {"version": 0, "body": study_note(find(study))}
    assert [json.loads(drawn["graph_object"])["layout"]["title"]["text"] for drawn in answer["plotly_graph_objects"]][
        :1
    ] == ["Learning curves: best, presets, pruned"]
    names = {trial["number"]: [file["filename"] for file in trial["artifacts"]] for trial in answer["trials"]}
    assert names == {number: ["learning-curve.svg", "command.txt"] if number < 3 else [] for number in range(5)}
    assert answer["best_trials"][0]["note"]["body"].startswith("**The best trial**")
    assert served.said == []


def test_later_trials_alone_are_answered_with_theirs(study, served):
    (pruned, failed) = detail(served, study, after=3)["trials"]
    assert (pruned["number"], failed["number"]) == (3, 4)


def test_artifacts_are_there_when_they_are_asked_for(study, served):
    best = next(trial for trial in detail(served, study)["trials"] if trial["number"] == 2)
    found = {}
    for file in best["artifacts"]:
        path = f"/artifacts/{study._study_id}/{best['trial_id']}/{file['artifact_id']}"
        status, headers, found[file["filename"]] = served(path)
        assert (status, headers["Content-Type"]) == (200, file["mimetype"])
    assert found["learning-curve.svg"].startswith(b"<svg ")
    assert b"python train_transformer3D/train_3d.py --data_dir" in found["command.txt"]


def test_the_best_weights_are_a_download_where_they_were_kept(study, served):
    served.artifacts.write(best_weights(unique_name(study.study_name, study.user_attrs["id"]), "trial-2"), b"weights")
    best = next(trial for trial in detail(served, study)["trials"] if trial["number"] == 2)
    (file,) = (file for file in best["artifacts"] if file["filename"] == "best_model.pth")
    status, headers, content = served(f"/artifacts/{study._study_id}/{best['trial_id']}/{file['artifact_id']}")
    assert (status, content, headers["Content-Disposition"]) == (200, b"weights", "attachment")


@pytest.mark.parametrize("kept", [99, "two", True])
def test_without_an_epoch_of_its_curve_that_was_kept_a_trial_has_no_picture_of_it(study, served, kept):
    add_trial(study, "COMPLETE", [0.6, 0.7], best_epoch=kept)
    files = [file["filename"] for file in detail(served, study)["trials"][5]["artifacts"]]
    assert files == ["command.txt"]


def test_an_artifact_that_can_no_longer_be_read_is_answered_with_the_reason(study, served):
    name = best_weights(unique_name(study.study_name, study.user_attrs["id"]), "trial-2")
    served.artifacts.write(name, b"weights")
    best = next(trial for trial in detail(served, study)["trials"] if trial["number"] == 2)
    (file,) = (file for file in best["artifacts"] if file["filename"] == "best_model.pth")
    served.artifacts.remove(name)
    (served.artifacts.folder / name).mkdir()
    status, _, content = served(f"/artifacts/{study._study_id}/{best['trial_id']}/{file['artifact_id']}")
    assert (status, json.loads(content)["reason"][:17]) == (502, "cannot read from ")


def test_a_study_that_goes_while_it_is_asked_for_is_not_found(sqlite):
    began = []
    app = Additions(None, optuna.storages.get_storage(sqlite), None, lambda line: None)
    asked = {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/studies/77"}
    body = b"".join(app(asked, lambda status, headers: began.append(status)))
    assert (began, json.loads(body)) == (["404 Not Found"], {"reason": "study_id=77 is not found"})


def test_the_table_has_numbers_to_sort_by_and_no_long_texts(study, served):
    answer = detail(served, study)
    columns = {column["key"]: column["sortable"] for column in answer["union_user_attrs"]}
    assert not {"config", "overrides", "cosine_by_yaw", "recognition"} & columns.keys()
    assert columns["val_cosine"] is columns["epochs_run"] is columns["cosine |yaw| 15-45°"] is True
    best = next(trial for trial in answer["trials"] if trial["number"] == 2)
    assert {"key": "cosine |yaw| 15-45°", "value": "0.65"} in best["user_attrs"]


def test_what_a_person_wrote_stays(study, served):
    optuna_dashboard.save_note(study, "mine")
    assert detail(served, study)["note"] == {"version": 1, "body": "mine"}


def test_a_person_may_write_over_our_note(study, served):
    note = {"version": detail(served, study)["note"]["version"] + 1, "body": "mine"}
    assert served(f"/api/studies/{study._study_id}/note", "PUT", note)[0] == 204
    assert detail(served, study)["note"] == note


def test_a_study_that_something_else_made_is_shown_as_it_is(sqlite, served):
    study = optuna.create_study(storage=sqlite, study_name="theirs")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    answer = detail(served, study)
    assert (answer["note"]["body"], answer["plotly_graph_objects"], len(answer["trials"])) == ("", [], 2)


def test_what_cannot_be_worked_out_is_said_once_and_the_study_is_shown_without(study, served, monkeypatch):
    monkeypatch.setattr("face3d_tune.dashboard.additions.find", lambda study: 1 / 0)
    monkeypatch.setattr("face3d_tune.dashboard.shown_study.FRESH", 0.0)
    assert [len(detail(served, study)["trials"]) for _ in range(2)] == [5, 5]
    (line,) = served.said
    assert line.endswith("notes and figures could not be made: ZeroDivisionError: division by zero")


def test_a_study_that_is_gone_is_not_found(served):
    assert served("/api/studies/77")[0] == 404


def test_an_artifact_that_was_uploaded_is_answered_too(study, served, tmp_path):
    (tmp_path / "page.html").write_text("<script>1</script>")
    key = optuna.artifacts.upload_artifact(
        artifact_store=served.artifacts.optuna_store, file_path=str(tmp_path / "page.html"), study_or_trial=study
    )
    status, headers, content = served(f"/artifacts/{study._study_id}/{key}")
    assert (status, content) == (200, b"<script>1</script>")
    assert (headers["Content-Type"], headers["Content-Disposition"]) == ("application/octet-stream", "attachment")


# Who is let in


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_beyond_this_machine_it_listens_only_with_a_token(sqlite, host):
    with pytest.raises(ConfigError, match="expected --token TEXT"):
        make_dashboard(sqlite, host)


@pytest.mark.parametrize("token", ["", "short", "0123456789abcde", "0123456789abcde;", "0123456789abcdeé"])
def test_a_token_that_is_easy_to_guess_or_no_cookie_is_refused(sqlite, token):
    with pytest.raises(ConfigError, match="--token"):
        make_dashboard(sqlite, token=token)


def test_the_answer_on_the_newest_study_is_made_before_anybody_asks(sqlite, monkeypatch):
    our_study(sqlite, "older")
    newest = our_study(sqlite, "newest")
    made, asked = threading.Event(), []

    def pieces(answer, after, additions):
        asked.append((answer._study_id, after))
        made.set()
        return []

    monkeypatch.setattr("face3d_tune.dashboard.study_answer.StudyAnswer.pieces", pieces)
    with serving(sqlite):
        assert made.wait(30)
    assert asked == [(newest._study_id, 0)]


# A script of the user's own


def test_a_trial_has_its_log_its_curves_and_its_numbers_as_columns(sqlite, served):
    study = study_of_script(*searched_script(), storage=sqlite)
    unique = unique_name("triplet", study.user_attrs["id"])
    served.artifacts.write(log_of(unique, "trial-12"), b"Epoch 1/5 ...\n")
    served.artifacts.write(log_of(unique, "trial-15"), "显存不足\n".encode())
    served.artifacts.write(log_of(unique, "trial-99"), b"of no trial")
    shown = detail(served, study)
    files = {trial["number"]: {file["filename"]: file for file in trial["artifacts"]} for trial in shown["trials"]}
    assert set(files[12]) == {"learning-curve.svg", "command.txt", "log.txt"}
    assert set(files[15]) == {"command.txt", "log.txt"}
    assert not files[3]
    trial = shown["trials"][15]
    address = f"/artifacts/{study._study_id}/{trial['trial_id']}/{files[15]['log.txt']['artifact_id']}"
    status, headers, text = served(address)
    assert (status, headers["Content-Type"], text.decode()) == (200, "text/plain; charset=utf-8", "显存不足\n")
    trial = shown["trials"][12]
    address = f"/artifacts/{study._study_id}/{trial['trial_id']}/{files[12]['learning-curve.svg']['artifact_id']}"
    status, _, picture = served(address)
    assert status == 200
    assert b"Val/CosineSimilarity by epoch" in picture
    assert b"Train/Loss by epoch" in picture
    assert b"kept: epoch 3, 0.7" in picture
    attrs = {attr["key"]: attr["value"] for attr in trial["user_attrs"]}
    assert (attrs["Val/CosineSimilarity"], attrs["Train/Loss"]) == ("0.7", "0.8")
    assert not {"numbers", "config"} & attrs.keys()
    assert {"Val/CosineSimilarity", "Train/Loss"} <= {column["key"] for column in shown["union_user_attrs"]}
    assert "script" not in {attr["key"] for attr in shown["user_attrs"]}
    assert shown["note"]["body"].startswith("## triplet")
    assert [json.loads(figure["graph_object"])["layout"]["title"]["text"] for figure in shown["plotly_graph_objects"]]
    assert not served.said


def test_a_number_with_the_name_of_an_attribute_has_another_column(sqlite, served):
    trial = script_trial("COMPLETE", [0.5])
    trial.user_attrs["numbers"]["seconds"] = 3.5
    study = study_of_script(trial, storage=sqlite)
    (shown,) = detail(served, study)["trials"]
    attrs = {attr["key"]: attr["value"] for attr in shown["user_attrs"]}
    assert (attrs["seconds"], attrs["seconds of the script"]) == ("60.0", "3.5")
    assert not served.said


def test_artifacts_that_cannot_be_listed_are_said_once_and_the_study_is_shown_without(sqlite, served, monkeypatch):
    def refuse(prefix):
        raise ArtifactError("cannot list the bucket: Access Denied")

    study = study_of_script(*searched_script(), storage=sqlite)
    monkeypatch.setattr(served.artifacts, "names", refuse)
    shown = detail(served, study)
    assert {file["filename"] for file in shown["trials"][12]["artifacts"]} == {"learning-curve.svg", "command.txt"}
    assert shown["note"]["body"].startswith("## triplet")
    assert served.said == ["cannot list the bucket: Access Denied"]


@pytest.mark.parametrize("study", [recognised, over_folds])
def test_plotlys_tool_bar_covers_no_title_of_a_figure(study):
    trials = [trial_of("COMPLETE", 0.3 + 0.01 * place, lr=1e-3 * (1 + place)) for place in range(12)]
    drawn = figures(find(study())) | figures(find(study_of(*trials)))
    assert {"learning-curves", "importance"} <= drawn.keys()
    assert max(len(each["layout"]["title"]["text"]) for each in drawn.values()) <= 40
