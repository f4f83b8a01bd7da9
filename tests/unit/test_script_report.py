"""What a report says of a study of the user's own script, with numbers worked out by hand, for both directions."""

import json
import re
from dataclasses import replace

import pytest
from optuna.trial import TrialState
from own_script import found_of
from stored_script import METRIC, script_attrs, script_trial, searched_script, study_of_script
from test_report import MADE, Page

from face3d_tune.analysis.findings import find
from face3d_tune.analysis.of_script import further_numbers, kept_epoch
from face3d_tune.dashboard.notes import study_note
from face3d_tune.report.commands import to_search_again
from face3d_tune.report.content import content
from face3d_tune.report.render import report
from face3d_tune.script.stored_command import stored_command
from face3d_tune.study.history import ATTR

STUDIES = {
    "maximize": lambda: searched("maximize"),
    "minimize": lambda: searched("minimize"),
    "empty": study_of_script,
    "running": lambda: study_of_script(script_trial("RUNNING", [0.4]), script_trial("WAITING")),
    "failed": lambda: study_of_script(script_trial("FAIL", error="no GPU"), script_trial("FAIL")),
    "pruned": lambda: study_of_script(script_trial("PRUNED", [0.3], preset="defaults")),
    "one trial": lambda: study_of_script(script_trial("COMPLETE", [0.3, 0.6])),
    "defaults are best": lambda: study_of_script(
        script_trial("COMPLETE", [0.6], preset="defaults"), script_trial("COMPLETE", [0.5], preset="recommended")
    ),
    "keeps another epoch": lambda: study_of_script(
        *searched_script(), script={"keep": "Train/Loss", "source": "printed", "seed_flag": None}
    ),
    "no epochs": lambda: study_of_script(
        *searched_script(), settings=script_attrs()["settings"] | {"epochs": None, "fixed": {}}
    ),
    "follows another": lambda: study_of_script(
        *searched_script(),
        **{"from": {"study": "before", "trial": 3, "value": 0.61, "config": {}, "objective": METRIC["maximize"]}},
    ),
    "confirmed": lambda: study_of_script(*searched_script(), script_confirmation=of_trial(12)),
    "out of date": lambda: study_of_script(*searched_script(), script_confirmation=of_trial(11)),
    "as fast": lambda: compared_with_built_in(3.25),
    "nan": lambda: study_of_script(nan_loss()),
    "odd numbers": lambda: study_of_script(
        script_trial("COMPLETE", [float("inf"), 123456.0, float("nan")], direction="minimize", preset="defaults"),
        script_trial("COMPLETE", [0.00001], direction="minimize"),
        direction="minimize",
        name="<b>|*",
    ),
}


def of_trial(number):
    """A confirmation of five seeds whose winner is this trial."""
    found = found_of(winner=f"trial {number}")
    found["candidates"][0] |= {"trial": number, "name": f"trial {number}"}
    return found


def nan_loss():
    """A trial whose loss was never a number."""
    trial = script_trial("COMPLETE", [0.5, 0.6])
    numbers = trial.system_attrs[ATTR]["numbers"]
    numbers["Train/Loss"] = [float("nan")] * 2
    return trial


def compared_with_built_in(times, **changed):
    """A study whose script was tried beside the built-in trainer."""
    engine = {"times": times, "start_counted": False, "script_cosine": 0.61, "built_in_cosine": 0.6104, "apart": 0.0004}
    engine |= {"options": ["--study", "mine.toml"], "lacking": ["--seed"]} | changed
    return study_of_script(*searched_script(), script={"engine": engine})


def searched(direction):
    return study_of_script(*searched_script(direction), direction=direction)


def said(study, language="en", form="html"):
    text = report(find(study), form, language, MADE)
    return Page(text).text if form == "html" else text


def section(notes, title):
    return notes.partition(f"## {title}")[2].partition("\n## ")[0]


def test_a_number_that_was_never_finite_has_no_picture():
    assert "Train/Loss by epoch" in said(study_of_script(script_trial("COMPLETE", [0.5, 0.6])))
    assert "Train/Loss by epoch" not in said(STUDIES["nan"]())


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_of_a_script_has_a_report_in_every_form_with_the_same_parts_in_both_languages(name):
    found = find(STUDIES[name]())
    english, chinese = (Page(report(found, "html", language, MADE)) for language in ("en", "zh"))
    assert (english.ids, english.tags) == (chinese.ids, chinese.tags)
    assert {"answer", "reproduce", "terms"} <= set(english.ids)
    assert ("confirmed" in english.ids) == (name in ("confirmed", "out of date"))
    assert not {"rotated", "recognised", "yaw", "watch"} & set(english.ids)
    notes = [report(found, "md", language, MADE) for language in ("en", "zh")]
    assert len({tuple(re.findall(r"^(#+ |\| |```)", each, flags=re.M)) for each in notes}) == 1
    assert not {"cosine similarity", "no model", "kernel ridge", "validation people"} & set(english.said)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    held = json.loads(report(found, "json", "en", MADE), parse_constant=refuse)
    assert (held["script"]["path"], held["direction"], held["lines"]) == (
        "train_3d_triplet.py",
        found.objective.direction,
        {},
    )


@pytest.mark.parametrize(
    ("direction", "values", "far"),
    [("maximize", ("0.7000", "0.6000", "0.5500"), "higher"), ("minimize", ("0.3000", "0.4000", "0.4500"), "lower")],
)
def test_the_answer_compares_with_the_defaults_and_the_guides_preset_and_says_what_is_better(direction, values, far):
    text, (best, defaults, preset) = said(searched(direction)), values
    metric = METRIC[direction]
    assert f"compared by {metric}, a number that the script itself gives: {far} is better." in text
    assert (
        f"The best is trial 12: {metric} {best}. It is 0.1000 {far}, and so better, than the script's defaults" in text
    )
    assert f"defaults ({defaults}). It is 0.1500 {far}, and so better, than the preset recommended ({preset})." in text
    assert "10 of the 10 other completed trials beat every preset too" in text
    assert "the next one is 0.0450 behind" in text
    chinese = said(searched(direction), "zh")
    assert f"比脚本默认值（{defaults}）{'高' if direction == 'maximize' else '低'} 0.1000，因此更好。" in chinese


def test_leads_are_positive_where_the_best_is_better_whatever_the_direction():
    for direction in METRIC:
        gain = content(find(searched(direction)), MADE).gain
        assert gain.over_no_model is None
        assert (gain.over_preset, gain.preset) == (pytest.approx(0.1), "defaults")
        assert gain.over_runner_up == pytest.approx(0.045)
        assert (gain.others, gain.others_above) == (10, 10)


def test_the_best_so_far_goes_down_where_lower_is_better():
    steps = {direction: content(find(searched(direction)), MADE).improvements for direction in METRIC}
    up, down = ([step["value"] for step in steps[direction]] for direction in ("maximize", "minimize"))
    assert up == sorted(up)
    assert down == pytest.approx([1 - value for value in up])
    assert [step["trial"] for step in steps["minimize"]] == [0, *range(2, 13)]
    assert (up[0], up[-1], down[0], down[-1]) == (0.6, 0.7, 0.4, 0.3)


def test_the_line_of_the_best_so_far_falls_where_lower_is_better():
    ends = {}
    for direction in METRIC:
        page = report(find(searched(direction)), "html", "en", MADE)
        chart = page.partition("of every finished trial by number, and the best so far</title>")[2].partition("</svg>")[
            0
        ]
        points = [tuple(map(float, pair.split(","))) for pair in re.search(r'points="([^"]+)"', chart)[1].split()]
        ends[direction] = points[-1][1] - points[0][1]  # px, downwards
    assert ends["maximize"] < 0 < ends["minimize"]


@pytest.mark.parametrize(
    ("direction", "row"),
    [
        ("maximize", "| Val/CosineSimilarity (higher is better) | 0.6000 | 0.5500 | 0.7000 | ↑ 17 % |"),
        ("minimize", r"| val\_loss (lower is better) | 0.4000 | 0.4500 | 0.3000 | ↓ 25 % |"),
    ],
)
def test_before_and_after_has_the_searched_flags_and_the_numbers(direction, row):
    table = section(said(searched(direction), form="md"), "Before and after")
    assert "| measure | the script's defaults | recommended | best found | change from before |" in table
    assert "| lr | 0.001 | 5e-5 | 0.003 | ↑ 200 % |" in table
    assert "| optimizer | adam | adam | sgd | – |" in table
    assert row in table
    assert "| Train/Loss | 0.8000 | 0.8000 | 0.8000 | = |" in table
    assert "| training time (s per epoch) | 15.00 | 20.00 | 15.00 | = |" in table


def test_the_trials_stand_in_a_table_of_flags_and_numbers():
    table = section(said(searched("maximize"), form="md"), "The best trial and the presets")
    assert "| best: trial 12 | 0.003 | 0.5 | sgd | 0.7000 | 0.8000 | 3 of 4 |" in table
    assert "| the script's defaults | 0.001 | 0.2 | adam | 0.6000 | 0.8000 | 3 of 4 |" in table
    page = Page(report(find(searched("maximize")), "html", "en", MADE))
    assert "Train/Loss by epoch of the best trial and the presets" in page.text
    assert "Of Val/CosineSimilarity, higher is better. Drawn faintly: 2 pruned trials." in page.text


def test_the_search_says_why_trials_failed():
    text = section(said(searched("minimize"), form="md"), "How the search went")
    assert "| 15 | out of memory | torch.OutOfMemoryError: CUDA out of memory |" in text
    assert "| 16 | an error | ValueError: margin must be below 1 |" in text
    assert "13 trials completed, 2 pruned, 2 failed: 35 epochs in 17 min." in text  # 4 + 3 + 10·2 + 4 + 2·2


def test_parameters_are_flags_and_groups_have_the_metrics_means():
    text = section(said(searched("minimize"), form="md"), "Which settings mattered")
    assert "| lr | 1e-5 … 0.1, log | 0.001 | 0.003 |" in text
    assert "how much of the differences in val\\_loss lie between the groups" in text
    # Of lr 0.002: 1 - (0.61 + 0.005 · 4.5)
    assert "5e-5: 0.4500 (1); 0.001: 0.4000 (1); 0.002: 0.3675 (10); 0.003: 0.3000 (1)" in text


def test_the_command_that_searches_again_names_a_study_that_can_be_made():
    found = find(searched("maximize"))
    words = to_search_again(replace(found, name="a" * 200))
    assert words[words.index("--study-name") + 1] == "a" * 194 + "-again"  # 200 characters


def test_the_commands_train_the_best_and_search_again_without_face_data():
    held = content(find(searched("maximize")), MADE)
    assert [" ".join(words) for words in held.commands] == [
        "python train_3d_triplet.py --lr 0.003 --margin 0.5 --optimizer sgd --batch_size 16 --epochs 5 --seed 11"
    ]
    assert " ".join(held.repeat) == (
        "face3d-tune run --study triplet.toml --study-name triplet-again --trials 20 --epochs 5 --seed 42 --slots 1"
    )
    text = said(searched("maximize"))
    assert "train_3d_triplet.py a1b2c3d40000, models/net.py ffee00110000" in text
    assert "Val/CosineSimilarity; from TensorBoard; higher is better" in text


def test_a_stored_command_says_what_it_cannot_type():
    script = script_attrs(script={"seed_flag": None, "epochs_flag": "num_epochs", "path": "-x.py"})["script"]
    config = {"lr": 1e-05, "amp": True, "augment": False, "resume": None, "layers": [64, 128], "epochs": 5}
    assert stored_command(script, {"config": config, "seed": 3}) == (
        ["python", "./-x.py", "--lr", "1e-05", "--amp", "--layers", "64", "128", "--num_epochs", "5"],
        ["how the script spells its flags: it is not at train_3d_triplet.py", "augment = False"],
    )
    study = study_of_script(script_trial("COMPLETE", [0.5]), script={"seed_flag": None})
    assert "| seed of the best trial | the script's own |" in said(study, form="md")
    unsaid = study_of_script(script_trial("COMPLETE", [0.5], config={"lr": 0.1, "augment": False}))
    assert (
        "This line does not say how the script spells its flags: it is not at train_3d_triplet.py; augment = False."
        in said(unsaid)
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "No trial has finished yet"),
        ("running", "Not finished: 1 trial in training and 1 waiting"),
        ("failed", "No trial has completed, so there is no answer: 0 pruned (stopped early as hopeless), 2 failed"),
        ("one trial", "No preset has completed, so there is nothing to compare it with."),
        ("defaults are best", "Nothing beat the script's defaults, trial 0: Val/CosineSimilarity 0.6000."),
        ("defaults are best", "It is 0.1000 higher, and so better, than the preset recommended (0.5000)."),
        ("keeps another epoch", "A trial's value is that of the epoch with the lowest Train/Loss."),
        ("keeps another epoch", "Val/CosineSimilarity; from what it prints; higher is better"),
        ("follows another", "with the values of its best trial (3, 0.6100 there)"),
        ("odd numbers", "It is 1.235e+05 lower, and so better, than the script's defaults (1.235e+05)."),
    ],
)
def test_what_is_missing_or_odd_is_said(name, words):
    assert words in said(STUDIES[name]())


def test_a_report_begins_with_what_the_script_reached_when_it_trained_again():
    notes = said(STUDIES["confirmed"](), form="md")
    part = section(notes, "What the script reached when it trained again")
    assert r"**trial 12 is better than defaults: val\_cos +0.0800 (+0.0500 to +0.1100) over 5 seeds.**" in part
    assert "| trial 12 | 0.7000 | 0.6800 ± 0.0100 | 0.6100 ± 0.0141 |" in part
    assert "Out of date" not in notes
    assert "what holds of it stands above" in notes
    assert notes.index("trained again") < notes.index("The question and the answer")
    old = said(STUDIES["out of date"]())
    assert "Out of date: another trial is the best now" in old
    assert "the trainings above are of another trial. face3d-tune confirm --study-name triplet trains it again." in old
    assert "脚本重新训练的结果" in said(STUDIES["confirmed"](), "zh")
    assert content(find(STUDIES["confirmed"]()), MADE).script_confirmation == of_trial(12)


@pytest.mark.parametrize(
    ("times", "changed", "words"),
    [
        (3.25, {}, "would be 3.2 times as fast with the same numbers: after one epoch the two were 0.0004 apart"),
        (3.25, {"start_counted": True}, "would be up to 3.2 times as fast with the same numbers"),
        (None, {}, "The epoch was too short to time."),
        (3.25, {"apart": 0.3}, "gives other numbers than the script: after one epoch the two were 0.3000"),
    ],
)
def test_a_report_says_how_the_built_in_trainer_compares(times, changed, words):
    study = compared_with_built_in(times, **changed)
    text = said(study)
    assert words in text
    assert ("face3d-tune run --study mine.toml" in text) == ("other numbers" not in words)
    assert ("(It lacks --seed, which have their defaults here.) To search with it:" in text) == (
        "other numbers" not in words
    )
    assert "built-in trainer" in study_note(find(study))


def test_a_script_that_was_not_compared_with_the_built_in_trainer_says_so_in_the_note_alone():
    study = study_of_script(*searched_script(), script={"engine": {"reason": "it has no --data_dir"}})
    assert "built-in trainer" not in said(study)
    assert r"the built-in trainer was not compared: it has no --data\_dir" in study_note(find(study))


def test_where_the_script_can_be_read_its_flags_say_what_is_off_and_a_seed_fits_it(tmp_path):
    path = tmp_path / "train.py"
    declared = (
        '"--augment", action=argparse.BooleanOptionalAction, default=True',
        '"--lr", type=float',
        '"--seed", type=int',
    )
    calls = "".join(f"parser.add_argument({each})\n" for each in declared)
    path.write_text(f"import argparse\nparser = argparse.ArgumentParser()\n{calls}")
    script = script_attrs(script={"command": ["python", str(path)], "path": "train.py", "arguments": ["-v"]})["script"]
    config = {"lr": 0.5, "augment": False, "margin": 1}
    words, missing = stored_command(script | {"epochs_flag": None}, {"config": config, "seed": 2**31 + 3})
    assert words == ["python", "train.py", "-v", "--lr", "0.5", "--no-augment", "--seed", "3"]
    assert missing == [f"margin = 1: {path} has no --margin"]


def test_a_script_that_changed_meanwhile_is_said_first():
    trials = [script_trial("COMPLETE", [value], script_version=f"v{value}") for value in (0.5, 0.6)]
    study = study_of_script(*trials)
    assert "The script changed meanwhile: the trials come from 2 versions of it" in said(study)
    assert "来自脚本的 2 个版本" in said(study, "zh")
    assert content(find(study), MADE).script_versions == ["v0.5", "v0.6"]
    assert "changed meanwhile" not in said(study_of_script(trials[0]))


def test_trials_that_the_time_limit_ended_are_counted():
    study = study_of_script(script_trial("COMPLETE", [0.5], stop_reason="over_time"), script_trial("COMPLETE", [0.6]))
    assert "1 trial reached the time limit" in said(study)
    assert "reached the time limit" not in said(searched("maximize"))


def test_further_numbers_are_that_of_the_kept_epoch_then_those_of_validation():
    script = script_attrs(script={"metric": "acc", "keep": "loss", "keep_direction": "minimize"})["script"]
    assert further_numbers(["seconds", "val_time", "a"], script) == ["a", "seconds", "val_time"]
    assert further_numbers(["grad_norm", "learning_rate", "train/lr", "loss2"], script)[0] == "loss2"
    assert further_numbers(["a", "acc", "Val/F1", "loss", "验证精度", "b"], script) == ["loss", "Val/F1", "验证精度"]
    assert kept_epoch(script) == "the epoch with the lowest loss"
    assert kept_epoch(script | {"keep": None}) == "the epoch with the highest acc"


def test_findings_are_those_of_a_script_study():
    found = find(searched("minimize"))
    assert (found.best.number, found.best_preset.name, found.defaults.trial.number) == (12, "defaults", 0)
    assert [trial.number for trial in found.runners_up] == [11, 10, 9, 8]
    assert found.states == {"complete": 13, "pruned": 2, "fail": 2, "running": 0, "waiting": 0}
    assert {row.name for row in found.importances} == {"lr", "margin", "optimizer"}
    assert found.lines == {}
    assert all(trial.state == TrialState.COMPLETE for trial in found.notable)
