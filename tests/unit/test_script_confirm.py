"""The best trial and the presets of a study of the user's own script, trained again by the script and compared."""

import json
import math
import statistics

import optuna
import pytest
from command_line import call
from own_script import found_of, own_study, write_script
from stored_script import script_trial, study_of_script

from face3d_tune.analysis.script_confirmation import headings, headline, rows, sentences, words
from face3d_tune.executor.tasks import Event, Failure, Note, ScriptEnded, ScriptEpoch
from face3d_tune.refit.script_candidates import script_candidates
from face3d_tune.script.metrics import direction_of, is_test
from face3d_tune.script.running.tasks import ScriptTask
from face3d_tune.script.running.to_the_end import WholeTraining, to_the_end
from face3d_tune.storage.database import Storage

pytestmark = pytest.mark.slow


@pytest.fixture
def script(tmp_path):
    return write_script(tmp_path / "theirs")


def confirm(url, script, *more):
    return call("confirm", "--storage", url, "--slots", 2, *more, cwd=script.parent)


def stored(url):
    with Storage.parse(url).opened() as storage:
        return dict(optuna.load_study(study_name="triplet", storage=storage).user_attrs)


# --- what a real script gives -------------------------------------------------------------------------------------


def test_a_real_script_is_trained_again_with_shared_seeds_and_compared_by_seed(sqlite_url, script):
    own_study(sqlite_url, script)
    answer = confirm(sqlite_url, script, "--seeds", 3, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert [each["name"] for each in found["candidates"]] == ["trial 12", "defaults", "recommended"]
    assert (found["by"], found["count"], found["identical"], found["winner"]) == ("seeds", 3, False, "trial 12")
    assert found["tests"] == ["test_cosine_similarity"]
    assert {path.name for path in script.parent.iterdir()} == {"train_3d_triplet.py", "helper.py"}
    winner, defaults, _ = found["candidates"]
    assert winner["value"] == 0.7
    assert winner["mean"] == pytest.approx(statistics.fmean(winner["values"]))
    assert winner["sd"] == pytest.approx(statistics.stdev(winner["values"]))
    # The script's noise is the seed's alone, so the pairs differ by their values: lr 3e-3 to 1e-3, margin 0.3, sgd.
    expected = 0.1 * math.log10(3) + 0.3 + 0.05
    first = next(each for each in found["against"] if each["name"] == "defaults")
    assert first["difference"] == pytest.approx(expected, abs=1e-5)
    assert first["tests"]["test_cosine_similarity"]["difference"] == pytest.approx(expected, abs=1e-5)
    assert winner["values"][0] - defaults["values"][0] == pytest.approx(expected, abs=1e-5)
    records = {key: value for key, value in stored(sqlite_url).items() if key.startswith("confirm:")}
    assert len(records) == 9
    assert {record["best_epoch"] for record in records.values()} <= {1, 2, 3, 4, 5}
    assert len({record["seed"] for record in records.values()}) == 3
    assert stored(sqlite_url)["script_confirmation"] == {key: value for key, value in found.items() if key != "study"}
    again = confirm(sqlite_url, script, "--seeds", 3)
    assert "9 of them are stored already" in again.err
    assert "trial 12" in again.out
    assert "What cannot be known here" in again.out


def test_where_lower_is_better_a_test_number_of_every_epoch_is_that_of_the_kept_one(sqlite_url, tmp_path):
    row = ('"Val/CosineSimilarity": value', '"val_loss": 1 - value, "test_loss": 1.5 - value')
    noise = "0.005 * (2 if args.optimizer == 'sgd' else 1)"  # else both candidates have the noise of their seed alone
    before, after = (f"noise.gauss(0, {deviation})\n            row" for deviation in (0.005, noise))
    script = write_script(tmp_path / "theirs", row, (before, after))
    own_study(sqlite_url, script, direction="minimize")
    answer = confirm(sqlite_url, script, "--seeds", 2, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    for row in found["candidates"]:
        assert row["tests"]["test_loss"]["values"] == pytest.approx([value + 0.5 for value in row["values"]])
    best = next(each for each in found["against"] if each["name"] == found["headline"])
    assert (best["verdict"], best["low"] < best["difference"] < best["high"] < 0) == ("better", True)
    assert best["difference"] == pytest.approx(best["tests"]["test_loss"]["difference"])
    records = [value for key, value in stored(sqlite_url).items() if key.startswith("confirm:")]
    assert {record["best_epoch"] for record in records} & {2, 3, 4}  # neither the first nor the last


def test_a_script_without_a_seed_flag_is_repeated_and_identical_repeats_teach_nothing(sqlite_url, script):
    own_study(sqlite_url, script, seed_flag=None)
    answer = confirm(sqlite_url, script, "--seeds", 2)
    assert answer.code == 0, answer.err
    assert "repeats may differ at random or not at all" in answer.err
    assert (
        "All repeats gave the same numbers: the script fixes its seed, so nothing was learnt about noise." in answer.out
    )
    found = stored(sqlite_url)["script_confirmation"]
    assert (found["by"], found["seeds"], found["identical"]) == ("repeats", None, True)
    assert {each["verdict"] for each in found["against"]} == {"uncertain"}
    assert {each["low"] for each in found["against"]} == {None}


def test_a_candidate_that_diverges_is_named_and_the_others_compared(sqlite_url, tmp_path):
    before = "noise.gauss(0, 0.005)\n            row"
    after = before.replace("row", "value = math.nan if args.lr < 1e-4 else value\n            row")
    script = write_script(tmp_path / "theirs", (before, after))
    own_study(sqlite_url, script)
    answer = confirm(sqlite_url, script, "--seeds", 1)
    assert answer.code == 0, answer.err
    assert "recommended could not be trained: Val/CosineSimilarity is nan in epoch 1" in answer.out
    assert "With one training of each there is no interval" in answer.out
    assert stored(sqlite_url)["script_confirmation"]["headline"] == "defaults"


def test_a_script_that_fails_ends_the_confirmation_in_one_line(sqlite_url, script):
    own_study(sqlite_url, script)
    (script.parent / "helper.py").write_text("raise SystemExit('no data here')\n", encoding="utf-8")
    answer = confirm(sqlite_url, script, "--slots", 1)  # of two at once either may fail first
    assert (answer.code, answer.out) == (1, "")
    assert "helper.py has changed since the study" in answer.err
    assert "error: trial 12, seed 1: " in answer.err
    assert "no data here" in answer.err


def test_what_a_training_leaves_behind_and_writes_beside_the_script_is_said(sqlite_url, tmp_path):
    left = """import subprocess, sys
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "best.txt"), "w") as file:
        file.write(str(args.lr))
    """
    script = write_script(tmp_path / "theirs", ("noise = random", left + "noise = random"))
    own_study(sqlite_url, script, script_trial("COMPLETE", [0.5, 0.6]))
    answer = confirm(sqlite_url, script, "--seeds", 1)
    assert answer.code == 0, answer.err
    said = " ".join(answer.err.split())
    assert "trial 0, seed 1: the script left a process running, which was ended: " in said
    assert "trial 0, seed 1: changed beside the script meanwhile: best.txt" in said


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("--rotate",), ("--keep", "out"), ("--data-dir", "faces"), ("--amp", "off")])
def test_options_of_the_built_in_trainer_are_refused(sqlite_url, script, words):
    own_study(sqlite_url, script)
    answer = confirm(sqlite_url, script, *words)
    assert (answer.code, answer.out) == (2, "")
    assert f"searches a script of your own, which has no {words[0]}" in answer.err


def test_a_preset_that_the_study_lacks_is_named(sqlite_url, script):
    own_study(sqlite_url, script)
    answer = confirm(sqlite_url, script, "--baseline", "default")
    assert answer.code == 2
    assert "no preset named 'default' in the study; did you mean 'defaults'?" in answer.err


def test_a_flag_that_the_script_has_no_longer_is_named_before_anything_trains(sqlite_url, tmp_path):
    own_study(sqlite_url, write_script(tmp_path / "theirs"))
    flag = '    parser.add_argument("--margin", type=float, default=0.2)\n'
    script = write_script(tmp_path / "theirs", (flag, ""), ("abs(args.margin - 0.5)", "0"))
    answer = confirm(sqlite_url, script)
    assert (answer.code, answer.out) == (2, "")
    assert "train_3d_triplet.py cannot express margin" in answer.err
    assert ", values of trial 12" in answer.err
    assert "hint: name the script that the study searched with --script" in answer.err


# --- parts --------------------------------------------------------------------------------------------------------


def test_which_numbers_a_script_calls_a_test():
    tests = ["Test/CosineSimilarity", "test_loss", "final_test_acc", "valTestCos", "测试余弦", "TEST loss"]
    others = ["latest_loss", "Val/Loss", "contest", "fastest"]
    assert [name for name in (*tests, *others) if is_test(name)] == tests
    assert [direction_of(name) for name in ("test_loss", "Test/MSE", "Test/Top1", "测试余弦")] == [
        *("minimize", "minimize", "maximize", "maximize"),
    ]


@pytest.mark.parametrize(("direction", "best"), [("maximize", 0.70), ("minimize", 0.30)])
def test_the_candidates_are_the_best_trial_in_its_direction_and_the_presets(direction, best, sqlite_url, script):
    study = own_study(sqlite_url, script, direction=direction)
    first, *presets = script_candidates(study, 1)
    assert (first.name, first.value, first.preset) == ("trial 12", pytest.approx(best), False)
    assert [each.name for each in presets] == ["defaults", "recommended"]
    assert [each.name for each in script_candidates(study, 3)][:3] == ["trial 12", "trial 11", "trial 10"]


def test_a_trial_with_the_values_of_a_better_one_or_of_a_preset_is_no_candidate():
    study = study_of_script(
        script_trial("COMPLETE", [0.5], preset="defaults"),
        script_trial("COMPLETE", [0.9]),  # the values of `defaults`
        script_trial("COMPLETE", [0.8], lr=2e-3),
        script_trial("COMPLETE", [0.7], lr=2e-3),
        script_trial("COMPLETE", [0.6], lr=3e-3),
    )
    assert [each.name for each in script_candidates(study, 3)] == ["trial 2", "trial 4", "defaults"]


class FakeSlots:
    """Slots that give the events of a list, one call after another."""

    count, engine = 1, "script"

    def __init__(self, *rounds):
        self.rounds, self.started, self.dropped = list(rounds), [], []

    def start(self, task):
        self.started.append(task)

    def drop(self, number):
        self.dropped.append(number)

    def wait(self):
        return [Event(0, content) for content in self.rounds.pop(0)]

    def save_next(self):
        return False

    def close(self):
        pass


def test_a_killed_training_is_tried_again_and_its_epochs_count_from_one():
    task, said = ScriptTask(0, ("python", "x.py"), "key"), []
    slots = FakeSlots(
        [ScriptEpoch(1, {"a": 0.1}), ScriptEpoch(2, {"a": 0.2})],
        [Failure("killed", died=True)],
        [Note("begins again"), ScriptEpoch(1, {"a": 0.3}), ScriptEnded()],
    )
    (result,) = to_the_end([task], slots, lambda task, line: said.append(line))
    assert result == (slots.started[1], WholeTraining(({"a": 0.3},), ScriptEnded()))
    assert [each.retry for each in slots.started] == [False, True]
    assert said == ["begins again"]


def test_a_training_that_is_killed_each_time_fails():
    slots = FakeSlots(*[[Failure("killed", died=True)]] * 4)
    ((_, failure),) = to_the_end([ScriptTask(0, ("python", "x.py"), "key")], slots)
    assert (failure.message, len(slots.started)) == ("killed", 4)


# --- sentences ----------------------------------------------------------------------------------------------------


def test_a_confirmation_in_a_table_and_sentences():
    found = found_of()
    assert headings(found) == ["candidate", "val_cos, in study", "val_cos, trained", "test_cos"]
    assert rows(found) == [
        ["trial 12", "0.7000", "0.6800 ± 0.0100", "0.6100 ± 0.0141"],
        ["defaults = quickstart", "0.6000", "0.6000 ± 0.0200", "0.6100 ± 0.0141"],
    ]
    assert sentences(found)[:4] == [
        "trial 12 is better than defaults: val_cos +0.0800 (+0.0500 to +0.1100) over 5 seeds.",
        "By its own test number: trial 12 is not distinguishable from defaults: test_cos +0.0800 (-0.0100 to +0.1100) "
        "over 5 seeds.",
        "No decision of the search used a test number, so this is the more honest comparison.",
        "In the study trial 12 had val_cos 0.7000; over 5 seeds it is 0.6800 ± 0.0100.",
    ]
    assert "with the lowest val_loss" in " ".join(sentences(found))


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"identical": True},
        {"by": "repeats", "seed_flag": None},
        {"by": "repeats", "seed_flag": None, "identical": True},
        {"count": 1},
        {"headline": None, "against": []},
        {"over_time": 2, "changed": ["a.py"]},
    ],
)
def test_every_confirmation_is_said_in_both_languages(language, changed):
    said = sentences(found_of(**changed), language)
    assert said[0] == headline(found_of(**changed), language)
    assert not [line for line in said if "{" in line]


def test_without_a_test_number_the_comparison_is_said_to_flatter_and_alone_there_is_nothing_to_flatter():
    rows = [{**row, "tests": {}} for row in found_of()["candidates"]]
    said = sentences(found_of(candidates=rows, tests=[]))
    flatters = "The script gives no test number. val_cos also chose the trial, which flatters it against the presets."
    assert said[1] == flatters
    alone = sentences(found_of(candidates=rows[:1], tests=[], headline=None, against=[]))
    assert alone[0] == "trial 12 is compared with nothing: the study has no preset."
    assert alone[1].startswith("In the study trial 12 had val_cos 0.7000")


def test_both_languages_have_the_same_sentences_with_the_same_values():
    english, chinese = words("en"), words("zh")
    assert english.keys() == chinese.keys()
    for key in english:
        assert {part.split("}")[0] for part in english[key].split("{")[1:]} == {
            part.split("}")[0] for part in chinese[key].split("{")[1:]
        }, key


def test_deviations_and_differences_have_the_decimals_of_their_means():
    small = {"difference": 0.00004, "low": -0.00052, "high": 0.0006, "verdict": "same", "tests": {}}
    winner, preset = found_of()["candidates"]
    found = found_of(candidates=[winner | {"sd": 0.00052}, preset], against=[{"name": "defaults", **small}])
    assert rows(found)[0][2] == "0.6800 ± 0.0005"
    assert "val_cos +0.0000 (-0.0005 to +0.0006) over 5 seeds" in headline(found)
    tiny = found_of(candidates=[winner | {"mean": 2.5e-5, "sd": 1e-6}, preset], against=[{"name": "defaults", **small}])
    assert rows(tiny)[0][2] == "2.5e-05 ± 1e-06"
    assert "val_cos +4e-05 (-0.00052 to +0.0006)" in headline(tiny)


def test_a_study_without_presets_is_confirmed_against_nothing(sqlite_url, script):
    own_study(sqlite_url, script, script_trial("COMPLETE", [0.5, 0.6]))
    answer = confirm(sqlite_url, script, "--seeds", 1)
    assert answer.code == 0, answer.err
    assert "trial 0 is compared with nothing: the study has no preset." in answer.out
    assert "a test number of the script" in answer.out
