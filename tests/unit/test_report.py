"""What a report says, with numbers worked out by hand, in every form and language."""

import json
import re
import tomllib
from datetime import datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from string import Formatter
from types import SimpleNamespace

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from stored_study import (
    attrs_of,
    confirmation_of,
    of_one_person,
    over_folds,
    recognised,
    recognising_people,
    recognition_of,
    rotation_of,
    searched,
    study_of,
    trial_of,
    without_method,
)

import face3d_tune.analysis.diagnostics
import face3d_tune.report
from face3d_tune.analysis.confirmation import value_in_study
from face3d_tune.analysis.findings import find
from face3d_tune.analysis.importance import FEWEST
from face3d_tune.analysis.svg import tick_text, ticks
from face3d_tune.dashboard.notes import study_note
from face3d_tune.refit.candidates import candidates
from face3d_tune.report.blocks import number, rich
from face3d_tune.report.content import Content, content
from face3d_tune.report.render import report
from face3d_tune.report.words import Words
from face3d_tune.study.space import to_stored

MADE = datetime(2026, 1, 2, 3, 4)
WORDS = {
    language: tomllib.loads(Path(face3d_tune.report.__file__).with_name(f"{language}.toml").read_text(encoding="utf-8"))
    for language in ("en", "zh")
}
ANGRY = '<script>alert("x")</script> & 人脸|`{0}`**\n'
RIDGE = {"ridge_cosine": 0.65, "ridge_by_yaw": {"0-15": 0.8, "15-45": 0.7, "45-90": 0.4}, "ridge_penalty": 10.0}
KERNEL_RIDGE = {
    "kernel_ridge_cosine": 0.68,
    "kernel_ridge_by_yaw": {"0-15": 0.81, "15-45": 0.72, "45-90": 0.53},
    "kernel_ridge_choice": {"landmarks": "aligned", "gamma": 0.5, "penalty": 3.0, "views": 90, "centres": 90},
}
DIVERGED = confirmation_of(headline=None)
DIVERGED["candidates"][2] = {
    key: DIVERGED["candidates"][2][key] for key in ("name", "trial", "preset", "value", "aliases")
} | {"error": "loss is nan"}
DIVERGED["winner"] = DIVERGED["winner"] | {"value": 0.60, "validation_sd": None, "test_sd": None}
RECOGNISING = recognising_people(confirmation_of(), kernel_ridge="worse", ridge="same", no_model="better")
BY_IDENTITY = {"by_identity": {"value": -0.1, "validation": -0.125, "validation_sd": None}}
STUDIES = {
    "searched": lambda: study_of(*searched()),
    "without histories": lambda: study_of(*searched(history=False)),
    "empty": study_of,
    "running": lambda: study_of(trial_of("RUNNING"), trial_of("WAITING")),
    "failed": lambda: study_of(trial_of("FAIL"), trial_of("FAIL")),
    "pruned": lambda: study_of(trial_of("PRUNED", 0.3), trial_of("PRUNED", 0.2, preset="baseline")),
    "one trial": lambda: study_of(trial_of("COMPLETE", 0.6)),
    "best is a preset": lambda: study_of(trial_of("COMPLETE", 0.6, preset="baseline"), trial_of("COMPLETE", 0.5)),
    "several folds": over_folds,
    "training pairs": lambda: study_of(*searched(), data={"split": "none"}),
    "imported": lambda: study_of(
        trial_of("COMPLETE", 0.6, history=False, origin="imported", cosine_by_yaw={}, seed=None)
    ),
    "with ridge": lambda: study_of(*searched(), **RIDGE),
    "with kernel ridge": lambda: study_of(*searched(), **RIDGE, **KERNEL_RIDGE),
    "kernel ridge wins": lambda: study_of(*searched(), **RIDGE, **KERNEL_RIDGE | {"kernel_ridge_cosine": 0.71}),
    "ridge wins": lambda: study_of(*searched(), **RIDGE | {"ridge_cosine": 0.71}),
    "no model wins": lambda: study_of(*searched(), **RIDGE, no_model_cosine=0.8),
    "confirmed": lambda: study_of(*searched(), **RIDGE, confirmation=confirmation_of()),
    "confirmed twice": lambda: study_of(*searched(), confirmation=confirmation_of("same", 0.005, looks=2)),
    "confirmed worse": lambda: study_of(*searched(), confirmation=confirmation_of("worse", -0.05, ridge="worse")),
    "confirmed below the line": lambda: study_of(
        *searched(), **RIDGE, **KERNEL_RIDGE, confirmation=confirmation_of(kernel_ridge="worse")
    ),
    "few people": lambda: study_of(*searched(), confirmation=confirmation_of("uncertain", people=4)),
    "one person": lambda: study_of(*searched(), confirmation=of_one_person(confirmation_of())),
    "one seed": lambda: study_of(*searched(), confirmation=confirmation_of(seeds=[1])),
    "confirmed by 0.1.0": lambda: study_of(*searched(), confirmation=without_method(confirmation_of())),
    "few seeds": lambda: study_of(*searched(), confirmation=needing(None)),
    "out of date": lambda: study_of(*searched(), trial_of("COMPLETE", 0.8), confirmation=confirmation_of()),
    "diverged": lambda: study_of(*searched(), confirmation=DIVERGED),
    "recognised": recognised,
    "rotated": lambda: study_of(*searched(), rotation=rotation_of()),
    "rotated worse": lambda: study_of(
        *searched(), confirmation=confirmation_of(), rotation=rotation_of("worse", -0.05, kernel_ridge="worse")
    ),
    "rotated, same": lambda: study_of(*searched(), rotation=rotation_of("same", 0.005)),
    "rotated, old": lambda: study_of(*searched(), trial_of("COMPLETE", 0.8), rotation=rotation_of()),
    "rotated, few": lambda: study_of(*searched(), rotation=rotation_of("uncertain")),
    "rotated, one": lambda: study_of(*searched(), rotation=of_one_person(rotation_of())),
    "confirmed, recognising": lambda: study_of(*searched(), confirmation=RECOGNISING),
    "rotated, recognising": lambda: study_of(
        *searched(), rotation=recognising_people(rotation_of(), kernel_ridge="same", ridge="same", no_model="same")
    ),
    "identity": lambda: study_of(
        *searched(), confirmation=confirmation_of() | {"winner": confirmation_of()["winner"] | BY_IDENTITY}
    ),
    "few bands": lambda: study_of(
        *searched(), trial_of("COMPLETE", 0.8, cosine_by_yaw={"0-15": 0.9, "15-45": 0.8, "45-90": None})
    ),
    "angry names": lambda: study_of(*searched(), trial_of("COMPLETE", 0.1, preset=ANGRY), name=ANGRY),
}


def needing(people):
    """A confirmation whose people cannot show 0.01: it takes so many, or more seeds."""
    held = confirmation_of()
    return held | {"against": [entry | {"people_needed": people} for entry in held["against"]]}


class Page(HTMLParser):
    """The parts of a page: its tags, its ids, and its text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.ids, self.said = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data):
        self.said.append(data)

    @property
    def text(self):
        return " ".join("".join(self.said).split())


def page_of(study, language="en"):
    return Page(report(find(study), "html", language, MADE))


def held_by(study):
    return content(find(study), MADE)


def test_the_gain_is_measured_from_no_model_from_the_best_preset_and_from_the_runner_up():
    gain = held_by(study_of(*searched())).gain
    assert gain.over_no_model == pytest.approx(0.70 - 0.5)
    assert (gain.over_preset, gain.preset) == (pytest.approx(0.70 - 0.55), "baseline")
    assert gain.over_runner_up == pytest.approx(0.70 - 0.645)
    assert (gain.others, gain.others_above) == (10, 10)


def test_what_pruning_saved():
    held = held_by(study_of(*searched())).pruning
    assert (held["trials"], held["epochs"], held["saved_epochs"]) == (2, 10, 2 * (20 - 5))
    assert held["saved_seconds"] == pytest.approx(30 * 10 / 5)


def test_the_answer_in_words():
    said = page_of(study_of(*searched())).text
    assert "15 trainings of it ran in 16 min, each judged on 3 people it was never trained on (18 pairs" in said
    assert "The best is trial 12 with a cosine of 0.7000: 0.1500 more than the best preset (baseline, 0.5500)" in said
    assert "0.2000 more than using no model at all (0.5000)" in said
    assert "the best of 13 completed trials" in said
    assert "not yet confirmed on the 2 test people" in said
    assert "so it is flattered" in said
    assert "face3d-tune confirm --study-name faces asks them" in said
    assert "10 of the 10 other completed trials beat every preset too" in said
    assert "the next one is 0.0550 behind" in said


def test_a_report_on_several_folds_says_that_values_are_means_and_of_which_fold_the_curves_are():
    held, page = held_by(over_folds()), page_of(over_folds())
    assert (held.folds, held.best.cosine, [fold["value"] for fold in held.best.folds]) == (3, 0.6, [0.5, 0.6, 0.7])
    assert "each repeated on up to 3 folds, so that 10 people (60 pairs of views) are each judged by" in page.text
    assert "The value is the mean of 3 trainings, each judged on other people (0.5000, 0.6000, 0.7000)" in page.text
    assert "not yet confirmed on the 2 test people" in page.text
    assert "`face3d-tune confirm --study-name faces` asks them" in report(find(over_folds()), "md", "en", MADE)
    assert page.text.count("Curves, kept epochs and what is read from them are those of fold 1.") == 2
    assert "5 of 5" in page.text  # the kept epoch is one of those of fold 1, not of all 15
    assert "5 of 15" not in page.text
    assert "1 trial of these lost the race between folds" in page.text
    assert "3; a trial's value is the mean over them" in page.text
    assert held.repeat[held.repeat.index("--folds") + 1] == "3"
    assert "3 折的平均值" in page_of(over_folds(), "zh").text
    ordinary = page_of(study_of(*searched())).text
    assert "fold" not in ordinary
    assert "--folds" not in held_by(study_of(*searched())).repeat


def test_the_answer_says_whether_a_simpler_method_wins():
    above, below, nothing = (page_of(STUDIES[name]()).text for name in ("with ridge", "ridge wins", "no model wins"))
    assert "Is it the model? Yes: ridge regression" in above
    assert "reaches 0.6500. The best trial is 0.0500 above it." in above
    assert "Is it the model? No, the simpler method wins." in below
    assert "reaches 0.7100: 0.0100 more than the best trial." in below
    assert "doing nothing is better. The side view's embedding as it is reaches 0.8000: 0.1000 more" in nothing
    assert "What ridge regression reaches is not known" in page_of(study_of(*searched())).text  # an earlier version's
    assert "更简单的方法胜出" in page_of(STUDIES["ridge wins"](), "zh").text


def test_kernel_ridge_is_the_line_to_pass_where_a_study_has_it():
    above, below = (page_of(STUDIES[name]()).text for name in ("with kernel ridge", "kernel ridge wins"))
    assert "Is it the model? Yes: kernel ridge, a formula on the same embedding, landmarks and pose" in above
    assert "reaches 0.6800. The best trial is 0.0200 above it." in above
    assert "Is it the model? No, the simpler method wins. Kernel ridge" in below
    assert "reaches 0.7100: 0.0100 more than the best trial. (Ridge regression reaches 0.6500.)" in below
    held = json.loads(report(find(STUDIES["with kernel ridge"]()), "json", "en", MADE))
    assert {f"{key}": held[key] for key in held if key.startswith("kernel_ridge")} == {
        "kernel_ridge": 0.68,
        "kernel_ridge_by_yaw": KERNEL_RIDGE["kernel_ridge_by_yaw"],
        "kernel_ridge_choice": KERNEL_RIDGE["kernel_ridge_choice"],
    }
    notes = report(find(STUDIES["with kernel ridge"]()), "md", "en", MADE)
    assert "| kernel ridge | 0.810 | 0.720 | 0.530 |" in notes


def test_a_confirmation_compares_with_kernel_ridge_where_it_has_it():
    below = page_of(STUDIES["confirmed below the line"]()).text
    assert "on the test people trial 12 is worse than kernel ridge (seconds, and no tuning)." in below
    assert "kernel ridge (seconds" not in page_of(STUDIES["confirmed"]()).text
    assert "不如核岭回归" in page_of(STUDIES["confirmed below the line"](), "zh").text


CONFIRMED = {
    "confirmed": (
        "On people never seen, trial 12 is better than baseline by 0.0500 (0.0400 to 0.0600). "
        "It is better than every preset.",
        "在从未见过的人身上，试验 12 比 基线 baseline 好 0.0500（0.0400 到 0.0600）。它比每一个预设都好。",
    ),
    "confirmed twice": (
        "trial 12 is not distinguishable from baseline: +0.0050 (-0.0050 to +0.0150). "
        "It is not shown to be better than every preset.",
        "试验 12 与 基线 baseline 没有可分辨的差别：+0.0050（-0.0050 到 +0.0150）。不能证明它比每一个预设都好。",
    ),
    "confirmed worse": (
        "trial 12 is worse than baseline by 0.0500 (0.0400 to 0.0600).",
        "试验 12 比 基线 baseline 差 0.0500（0.0400 到 0.0600）。",
    ),
    "few people": ("6 test people are too few for a verdict on trial 12", "只有 6 个测试人员，不足以下结论"),
    "one person": (
        "One test person is too few for a verdict on trial 12 against baseline: +0.0500, without an interval.",
        "只有 1 个测试人员，不足以下结论：试验 12 与 基线 baseline 相差 +0.0500，没有区间。",
    ),
    "diverged": ("No preset could be trained to compare it with.", "没有预设能够训练，因此无从与预设比较。"),
}


@pytest.mark.parametrize("name", CONFIRMED)
def test_a_confirmation_is_the_first_thing_that_a_report_says(name):
    for language, said in zip(("en", "zh"), CONFIRMED[name], strict=True):
        page = page_of(STUDIES[name](), language)
        assert page.ids[0] == "confirmed"
        assert said in page.text
        assert said in report(find(STUDIES[name]()), "md", language, MADE).replace("**", "")


def test_a_report_names_the_winners_curse_the_looks_and_what_is_out_of_date():
    once, twice, old = (page_of(STUDIES[name]()).text for name in ("confirmed", "confirmed twice", "out of date"))
    assert "in the study trial 12 had 0.7000 on the validation people; trained 2 times on fresh seeds it has" in once
    assert "it has 0.6800 ± 0.0030. 0.0200 of the value was luck of the draw." in once
    assert "This is the first evaluation on the test people." in once
    assert "Evaluation 2 on the test people: each one makes the verdict a little less trustworthy." in twice
    assert "not yet confirmed" not in once
    assert "Out of date: another trial is the best now" in old
    assert "Winner's curse: none seen." in page_of(STUDIES["diverged"]()).text
    folded = study_of(*searched(), confirmation=confirmation_of(folds=3))
    assert "Winner's curse" not in page_of(folded).text  # its value is of other people than the fresh seeds'
    assert "on the test people trial 12 is worse than ridge regression" in page_of(STUDIES["confirmed worse"]()).text


@pytest.mark.parametrize(
    ("name", "english", "chinese"),
    [
        ("confirmed", "with 95 % t intervals over people and seeds", "附对人和种子的 95 % t 区间"),
        ("one seed", "the intervals leave out how much seeds differ", "区间不含种子之间的差别"),
        (
            "confirmed by 0.1.0",
            "percentile bootstraps of version 0.1.0, too narrow",
            "0.1.0 版的百分位自助法区间，人少时过窄",
        ),
    ],
)
def test_a_report_says_of_what_kind_its_intervals_are(name, english, chinese):
    for language, said in (("en", english), ("zh", chinese)):
        others = {"bootstrap", "自助法"} if "0.1.0" not in name else set()
        text = page_of(STUDIES[name](), language).text
        assert said in text
        assert not [word for word in others if word in text]


@pytest.mark.parametrize(
    ("name", "english", "chinese"),
    [
        (
            "confirmed",
            "What 6 test people can show. Against baseline: a difference of 0.0100 or more; 0.01 takes about 7 test "
            "people. Against ridge regression: a difference of 0.0100 or more;",
            "6 个测试人员能看出多大的差别。与 基线 baseline 相比：0.0100 以上；要看出 0.01 的差别，约需 7 个测试人员。",
        ),
        ("few people", "Against baseline: none, as they are too few; 0.01 takes", "人数太少，看不出差别；要看出 0.01"),
        ("few seeds", "0.01 takes more seeds first.", "要看出 0.01 的差别，先要有更多种子。"),
    ],
)
def test_a_report_says_which_differences_its_people_can_show(name, english, chinese):
    assert english in page_of(STUDIES[name]()).text
    assert chinese in page_of(STUDIES[name](), "zh").text


@pytest.mark.parametrize("name", ["one person", "confirmed by 0.1.0"])
def test_without_an_interval_or_its_variances_a_report_names_no_number_of_people(name):
    assert "can show" not in page_of(STUDIES[name]()).text


def test_the_json_report_holds_the_confirmation_as_it_is_stored():
    held = json.loads(report(find(STUDIES["confirmed"]()), "json", "en", MADE))
    assert held["confirmation"] == confirmation_of()
    assert (held["ridge"], held["ridge_by_yaw"], held["confirmed_best"]) == (0.65, RIDGE["ridge_by_yaw"], True)
    keys = list(held)
    assert keys.index("confirmation") < keys.index("best")


def test_recognition_has_a_section_and_its_warning_stands_before_the_answer():
    study = recognised(best=0.65)
    notes = report(find(study), "md", "en", MADE)
    said = "the best trial raises the cosine, but recognises people no better than ridge regression or kernel ridge."
    answer = notes.partition("## The question and the answer")[2]
    assert said in answer.partition("The best is trial 12")[0]
    section = notes.partition("## Whom it recognises")[2].partition("\n## ")[0]
    rates, bands = ([line.strip("| ").split(" | ") for line in part.splitlines()] for part in tables(section))
    assert rates[0][1:4] == ["validation cosine", "rank-1 of 3", "rank-1 of 12"]
    assert [row[0] for row in rates[2:]] == [
        *("no model", "ridge regression", "kernel ridge", "best: trial 12", "baseline", "recommended")
    ]
    assert rates[5][1:] == ["0.7000", "0.750", "0.650", "0.500", "0.400", "-0.2000"]
    assert bands[2] == ["no model", "0.600", "0.600", "0.600", "0.800"]  # pooled is the last
    held = json.loads(report(find(study), "json", "en", MADE))
    assert held["best"]["recognition"] == recognition_of(0.65, 0.7)
    assert held["recognition"]["kernel ridge"] == recognition_of(0.8, 0.65)
    assert (held["no_better_than"], held["trials"][0]["rank1"]) == (["ridge", "kernel ridge"], 0.4)


def test_recognition_over_several_folds_is_said_to_be_a_mean_of_people_who_validate_in_each():
    page = page_of(recognised(settings=attrs_of()["settings"] | {"folds": 3})).text
    assert "So in each of the 3 folds every view of its 3 validation people is also put beside" in page
    assert "Every number is the mean over the folds." in page
    assert "mean over the folds" not in page_of(recognised()).text


@pytest.mark.parametrize(("budget", "finished"), [(13, False), (12, True)])
def test_a_study_whose_budget_is_spent_has_finished_whatever_still_waits(budget, finished):
    effort = attrs_of()["effort"] | {"trials": budget}
    page = page_of(study_of(*searched()[:12], trial_of("WAITING", minute=60), effort=effort)).text
    assert ("Not finished: 0 trials in training and 1 waiting" not in page) is finished


def tables(section):
    return [each for each in section.split("\n\n") if each.startswith("| ")]


def test_a_study_without_recognition_has_no_section_on_it():
    assert "recognised" not in page_of(study_of(*searched())).ids
    assert "rank-1" not in page_of(study_of(*searched())).text
    assert "raises the cosine" not in page_of(recognised(best=0.9)).text
    assert "recognised" in page_of(recognised(best=0.9)).ids


def test_a_confirmation_compares_rank_1_too_and_first_says_whom_the_winner_is_not_shown_to_recognise_better_than():
    said = "trial 12 raises the cosine, but is not shown to recognise people better than"
    notes = report(find(STUDIES["confirmed, recognising"]()), "md", "en", MADE)
    before, _, after = notes.partition("On people never seen, trial 12 is better than")
    assert f"{said} ridge regression or kernel ridge." in before
    rank1 = next(part for part in after.split("\n\n") if part.startswith("| compared with | rank-1 of 12 |"))
    assert [line.strip("| ").split(" | ") for line in rank1.splitlines()[2:]] == [
        ["kernel ridge", "0.600", "worse", "+0.020 (+0.010 to +0.030)"],
        ["ridge regression", "0.600", "not distinguishable", "+0.020 (+0.010 to +0.030)"],
        ["no model", "0.600", "better", "+0.020 (+0.010 to +0.030)"],
    ]
    assert "rank-1 of trial 12 among all 12 enrolled is 0.620" in after
    of_rotation = page_of(STUDIES["rotated, recognising"]()).text
    assert f"{said} no model, ridge regression or kernel ridge." in of_rotation
    for name, listed in (("confirmed", "岭回归和核岭回归"), ("rotated", "不用模型、岭回归和核岭回归")):
        text = page_of(STUDIES[f"{name}, recognising"](), "zh").text
        assert f"试验 12 提高了余弦，但没有证据表明它识别人比{listed}更好。" in text
        assert "试验 12 在全部 12 个注册者中的 rank-1 是 0.620" in text


def test_a_report_has_rank_1_of_every_candidate_and_against_the_preset_to_beat_where_it_is_stored():
    verdicts = {"kernel_ridge": "better", "ridge": "better", "no_model": "better"}
    held = recognising_people(confirmation_of(kernel_ridge="same"), preset="same", **verdicts)
    notes = report(find(study_of(*searched(), confirmation=held)), "md", "en", MADE)
    assert "| validation, trained again | test | 0–15° | 15–45° | 45–90° | rank-1 of 12 |" in notes
    assert "| baseline = quickstart | 0.5500 | 0.5400 ± 0.0030 | 0.6400 ± 0.0020 | 0.800 | 0.600 | – | 0.610 |" in notes
    assert "| no model | – | 0.5000 | 0.5100 | 0.800 | 0.600 | – | 0.600 |" in notes
    assert "| baseline | 0.600 | not distinguishable | +0.020 (+0.010 to +0.030) |" in notes
    chinese = report(find(study_of(*searched(), confirmation=held)), "md", "zh", MADE)
    assert "| 基线 baseline | 0.600 | 没有可分辨的差别 | +0.020（+0.010 到 +0.030） |" in chinese


def test_a_report_says_nothing_of_recognition_where_it_is_better_or_was_not_confirmed():
    better = recognising_people(confirmation_of(), kernel_ridge="better", ridge="better", no_model="better")
    assert "raises the cosine" not in page_of(study_of(*searched(), confirmation=better)).text
    assert "rank-1" not in page_of(STUDIES["confirmed"]()).text


def test_a_report_shows_what_all_people_say_in_rotations_and_that_it_is_no_test():
    for language, said in (
        ("en", "Over all people, trial 12 is better than baseline by 0.0500 (0.0400 to 0.0600)."),
        ("en", "12 people were cut into 5 blocks."),
        ("en", "1 training of each trial and preset in every rotation"),
        ("en", "What 12 people in rotations can show."),
        ("en", "This is no test: the settings were chosen with some of these people"),
        ("en", "This is the first evaluation on the test people."),
        ("zh", "在所有人身上，试验 12 比 基线 baseline 好 0.0500（0.0400 到 0.0600）。"),
        ("zh", "这不是测试：选参数时用过其中一部分人"),
    ):
        assert said in page_of(STUDIES["rotated"](), language).text
    assert "Winner's curse" not in page_of(STUDIES["rotated"]()).text
    assert "Out of date" not in page_of(STUDIES["rotated"]()).text
    assert "Out of date" in page_of(STUDIES["rotated, old"]()).text
    assert "over all people trial 12 is worse than kernel ridge" in page_of(STUDIES["rotated worse"]()).text
    assert page_of(STUDIES["rotated worse"]()).ids[:2] == ["confirmed", "rotated"]


def test_the_json_report_holds_the_rotation_as_it_is_stored_beside_the_confirmation():
    held = json.loads(report(find(STUDIES["rotated"]()), "json", "en", MADE))
    assert (held["confirmation"], held["rotation"]) == (None, rotation_of())


def test_before_and_after_is_the_guides_table():
    notes = report(find(study_of(*searched())), "md", "en", MADE)
    table = notes.partition("## Before and after")[2].partition("##")[0]
    rows = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in table.splitlines()}
    assert rows["initial learning rate"] == ["1.0e-3", "5.0e-4", "3.0e-3", "↑ 200 %", "–"]
    assert rows["validation cosine"] == ["0.5500", "0.5200", "0.7000", "↑ 27 %", "0.5000"]
    assert rows["training time (s per epoch)"] == ["3.00", "3.00", "3.00", "= 0 %", "–"]
    assert "measured on the pairs that the model was trained on" in notes


def test_the_readings_are_those_of_the_best_trial():
    found = find(study_of(*searched()))
    held = content(found, MADE)
    assert [row.verdict for row in held.best.readings] == ["falling", "below-moving", "never", "together"]
    assert (
        "Still falling: the last 10 epochs lowered it by 33.3 %, to 0.5000 in epoch 20 of 20"
        in page_of(study_of(*searched())).text
    )


@pytest.mark.parametrize("objective", ["cosine", "identity"])
def test_the_four_things_to_watch_begin_with_whose_epochs_they_are_read_from(objective):
    study = study_of(*searched(), settings=attrs_of()["settings"] | {"objective": objective})
    watched = report(find(study), "md", "en", MADE).partition("## The four things to watch\n\n")[2]
    assert watched.startswith("What the tuning guide says to watch during training")


def test_the_commands_train_the_best_trial_on_poses_in_its_unit():
    held = held_by(study_of(*searched()))
    assert held.commands[0] == ["face3d-tune", "data", "convert", "faces", "faces-radians", "--pose-unit", "radians"]
    assert held.commands[1][:4] == ["python", "train_transformer3D/train_3d.py", "--data_dir", "faces-radians"]
    assert held.commands[1][held.commands[1].index("--lr") + 1] == "0.003"


def test_the_inputs_of_a_model_are_in_words_and_the_copy_that_its_command_writes_is_explained():
    settings = attrs_of()["settings"]
    choices = CategoricalDistribution(["view", "ridge", "kernel"])
    settings["space"] = {"inputs": json.loads(distribution_to_json(choices))}
    best = trial_of("COMPLETE", 0.7, inputs="kernel")
    study = study_of(trial_of("COMPLETE", 0.6, preset="baseline"), best, settings=settings)
    english, chinese = (report(find(study), "md", language, MADE) for language in ("en", "zh"))
    assert "| input of the model | side view / ridge regression / kernel ridge | side view | kernel ridge |" in english
    assert "| 模型输入 | 侧脸特征 / 岭回归 / 核岭回归 | 侧脸特征 | 核岭回归 |" in chinese
    assert "gets the output of kernel ridge in place of the side view's embedding" in english
    assert "用核岭回归的输出代替侧脸特征" in chinese
    assert "another unit than the files have" not in english  # its poses are in theirs
    assert "face3d-tune data convert faces faces-kernel --inputs kernel\n" in english
    assert "| trial | model's input | learning rate |" in english
    assert "| 试验 | 模型输入 | 学习率 |" in chinese
    of_views = report(find(study_of(trial_of("COMPLETE", 0.6), settings=settings)), "md", "en", MADE)
    assert "| trial | learning rate |" in of_views


def test_the_search_is_repeated_by_a_command_that_says_its_conditions():
    effort = {"trials": 20, "target": 0.8, "sampler": "tpe", "pruner": "median"}
    data = {"split": "none", "min_yaw": 15.0, "max_yaw": 60.0}
    words = " ".join(held_by(study_of(*searched(), effort=effort, data=data)).repeat)
    assert words == (
        "face3d-tune run --study default --study-name faces-again --data-dir faces --trials 20 --epochs 20 --seed 42"
        " --layout keypoint --split none --min-yaw 15 --max-yaw 60 --target 0.8 --slots 1"
    )


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_a_report_in_every_form_with_the_same_parts_in_both_languages(name):
    found = find(STUDIES[name]())
    english, chinese = (Page(report(found, "html", language, MADE)) for language in ("en", "zh"))
    assert english.ids == chinese.ids
    assert english.tags == chinese.tags
    assert {"answer", "reproduce", "terms"} <= set(english.ids)
    notes = [report(found, "md", language, MADE) for language in ("en", "zh")]
    assert len({tuple(re.findall(r"^(#+ |\| |```)", each, flags=re.M)) for each in notes}) == 1
    assert json.loads(report(found, "json", "en", MADE))["study"] == found.name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("empty", "No trial has finished yet"),
        ("running", "Not finished: 1 trial in training and 1 waiting"),
        ("failed", "No trial has completed, so there is no answer: 0 pruned (stopped early as hopeless), 2 failed"),
        ("pruned", "2 pruned (stopped early as hopeless), 0 failed"),
        ("one trial", "No preset has completed, so there is nothing to compare it with"),
        ("best is a preset", "Nothing beat the guide's preset baseline"),
        ("training pairs", "Measured on the training pairs themselves"),
        ("without histories", "did not keep losses and learning rates"),
        ("imported", "Of these, 1 trial came from earlier trainings"),
        ("imported", "This trial was imported from an earlier training"),
        ("identity", "trial 12 was chosen by its identity on the validation people, -0.1250; the winner's curse is"),
    ],
)
def test_what_is_missing_is_said(name, said):
    assert said in page_of(STUDIES[name]()).text


def test_few_trials_say_nothing_of_parameters_and_many_do():
    few = page_of(study_of(trial_of("COMPLETE", 0.6))).text
    assert f"not worked out from fewer than {FEWEST} completed trials; here are 1." in few
    assert "Beyond chance: learning rate. Of the others" in page_of(study_of(*searched())).text


def test_names_stay_names():
    page = page_of(STUDIES["angry names"]())
    assert page.tags.count("script") == 1  # ours
    assert "What the search “<script>alert" in page.text
    assert "{0}" in page.text
    notes = report(find(STUDIES["angry names"]()), "md", "en", MADE)
    assert notes.startswith(r'# What the search “\<script\>alert("x")\</script\> \& 人脸\|\`{0}\`\*\*')


def test_a_thousand_trials_are_drawn_as_few_elements():
    trials = [trial_of("PRUNED", 0.3, epochs=2, lr=1e-4 + 1e-6 * each) for each in range(300)]
    held = held_by(study_of(*searched(), *trials))
    assert 30 < len(held.pruned_curves) <= 40
    assert len(held.trials) == 315


def test_the_languages_have_the_same_sentences_with_the_same_values():
    english, chinese = WORDS["en"], WORDS["zh"]
    only = set(english) ^ set(chinese)
    assert all(key.startswith(("preset_", "value_")) for key in only)
    for key in set(english) & set(chinese):
        fields = [{field for _, field, _, _ in Formatter().parse(words[key]) if field} for words in (english, chinese)]
        assert fields[0] == fields[1], key


def test_every_verdict_has_its_words():
    source = Path(face3d_tune.analysis.diagnostics.__file__).read_text(encoding="utf-8")
    verdicts = {
        "loss": {"unknown", "short", "rising", "falling", "flat"},
        "cosine": {"unknown", "reached-stable", "reached-moving", "below-stable", "below-moving"},
        "lr": {"unknown", "never", "floor", "frequent", "decayed", "annealed"},
        "gap": {"unknown", "together", "overfitting", "unstable", "saturated"},
    }
    for about, each in verdicts.items():
        for verdict in each:
            assert verdict.split("-")[0] in source
            assert {f"reading_{about}_{verdict}", f"brief_{about}_{verdict}"} <= WORDS["en"].keys()


def test_the_keys_of_the_json_report_are_documented():
    page = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `(\w+)` \|", page, flags=re.M)
    assert documented == list(Content.__dataclass_fields__)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-5, "1e-5"), (1.41e-4, "1.4e-4"), (0.0, "0"), (0.5, "0.5"), (0.3177, "0.318"), (32, "32"), (20000.0, "2e4")],
)
def test_a_number_is_said_as_it_is_typed(value, text):
    assert number(value) == text


def test_values_are_never_read_as_style():
    assert rich("a **b {x}** `{x}`", x="**`{y}`**") == (
        ("plain", "a "),
        ("strong", "b **`{y}`**"),
        ("plain", " "),
        ("code", "**`{y}`**"),
    )


def test_a_report_says_how_many_trials_failed_by_cause_and_what_the_search_took_over():
    failed = [trial_of("FAIL", cause=cause) for cause in ("diverged", "diverged", "out_of_memory")]
    before = {"study": "stage1-lr", "trial": 11, "value": 0.602, "config": {}}
    study = study_of(*searched(), *failed, **{"from": before})
    text = page_of(study).text
    assert "Of those that failed: 2 diverged, 1 out of memory, 1 by an error." in text
    assert "where the study “stage1-lr” ended: with the config of its best trial (11, cosine 0.6020 there)" in text
    assert "2 个发散, 1 个内存不足" in page_of(study, "zh").text.replace("，", ", ").replace("、", ", ")
    held = held_by(study)
    causes = {"diverged": 2, "out_of_memory": 1, "timeout": 0, "error": 1, "outside": 0, "queued_again": 0}
    assert held.causes == causes
    assert held.follows == before
    repeated = " ".join(held.repeat)
    assert "--from stage1-lr" in repeated
    without = page_of(study_of(trial_of("COMPLETE", 0.6))).text
    assert "Of those that failed" not in without
    assert "ended: with the config" not in without


def test_a_number_that_was_typed_with_many_digits_is_repeated_with_all_of_them():
    data = {"min_yaw": 1.23456789, "max_yaw": 60.1234567}
    words = " ".join(held_by(study_of(*searched(), effort={"trials": 20, "target": 0.71234567}, data=data)).repeat)
    assert "--min-yaw 1.23456789 --max-yaw 60.1234567 --target 0.71234567" in words


def test_a_search_for_a_target_that_must_hold_is_repeated_as_one():
    effort = {"trials": 20, "target": 0.8, "target_epochs": 5, "sampler": "tpe", "pruner": "median"}
    assert "--target 0.8 --target-epochs 5" in " ".join(held_by(study_of(*searched(), effort=effort)).repeat)


def test_a_search_whose_space_grew_is_repeated_with_the_ranges_that_its_file_may_lack():
    study = study_of(*searched())
    ends = (1e-3, 0.01, 0.1)
    rows = [to_stored({"lr": FloatDistribution(1e-6, high, log=True)})["lr"] for high in ends]
    told = {"parameter": "lr", "at": "2026-01-01T00:00:00Z", "by": "ada"}
    grown = [told | {"before": before, "after": after} for before, after in pairwise(rows)]
    study.set_user_attr("settings", study.user_attrs["settings"] | {"grown": grown})
    assert "write them there: lr: 1e-06 … 0.1 (log)." in page_of(study).text
    assert "write them there" not in page_of(study_of(*searched())).text


def test_times_and_counts_in_words():
    say = Words("en")
    assert [say.duration(seconds) for seconds in (3.25, 61, 600, 9000)] == ["3.2 s", "61 s", "10 min", "2.5 h"]
    assert say.text("at_most", n=1000) == "1,000 at most"
    assert [say.text("numbers", n=count) for count in (1, 2)] == ["1 number", "2 numbers"]


def test_ticks_are_round():
    assert [tick_text(each) for each in ticks(0.17, 0.68)] == ["0.2", "0.4", "0.6"]
    assert [tick_text(each, log=True) for each in ticks(1e-5, 3e-3, log=True)] == ["1e-5", "1e-4", "1e-3"]
    assert ticks(5.0, 5.0) == [5.0]


def test_a_report_of_a_study_for_identity_is_in_its_unit_and_keeps_the_cosine_beside_it():
    study = recognised()
    study.set_user_attr("settings", study.user_attrs["settings"] | {"objective": "identity"})
    page, chinese = page_of(study), page_of(study, "zh")
    for shown in (
        "an identity of -0.2000",
        "by identity, which says how far the own person stands above all enrolled people",
        "curves are identities",
        "differences in identity lie between the groups",
        "mean identity by value",
        "share of the differences in identity (%)",
        "mean identity (at most 0)",
        "Validation identity by",
    ):
        assert shown in page.text, shown
    assert "mean cosine similarity (1 = identical)" in page.text  # of the picture by head turn
    assert "by the mean cosine" not in page.text
    assert "differences in cosine" not in page.text
    for shown in ("辨识度 -0.2000", "曲线都是辨识度", "平均辨识度（最大为 0）", "辨识度差异的占比（%）"):
        assert shown in chinese.text, shown
    assert "上评分：模型输出" not in chinese.text
    notes = report(find(study), "md", "en", MADE)
    assert "| validation identity | -0.2000 |" in notes  # of the guide's table
    assert re.search(r"\| poses in \| validation loss\\\* \| validation identity \| validation cosine \|", notes)
    held = held_by(study)
    assert (held.objective, held.lines) == ("identity", dict.fromkeys(("no model", "ridge", "kernel ridge"), -0.2))
    assert (held.best.value, held.no_model) == (-0.2, 0.5)
    assert {(point.value, point.cosine == point.value) for point in held.trials} == {(-0.2, False)}
    assert held.repeat[held.repeat.index("--objective") + 1] == "identity"


def test_a_pruned_preset_is_marked_in_the_guides_table_and_no_change_is_counted_from_it():
    """Its training was cut short: what it reached is the least that it would have."""
    changes = {}
    for state in ("COMPLETE", "PRUNED"):
        study = study_of(trial_of(state, 0.3, preset="baseline"), trial_of("COMPLETE", 0.6))
        text = report(find(study), "md", "en", MADE)
        before = WORDS["en"]["column_before"]
        assert (f"| {before} (pruned) |" in text) == (state == "PRUNED")
        row = next(line for line in text.splitlines() if line.startswith(f"| {WORDS['en']['row_cosine']} "))
        changes[state] = [cell.strip() for cell in row.split("|")][5]
    assert changes == {"COMPLETE": "↑ 100 %", "PRUNED": "–"}


def test_a_confirmation_says_that_a_pruned_preset_reached_at_least_its_value_in_the_study():
    held = confirmation_of()
    held["candidates"][1] = held["candidates"][1] | {"pruned": True, "value": 0.4321}
    study = study_of(*searched(), confirmation=held)
    assert "| ≥ 0.4321 |" in report(find(study), "md", "en", MADE)
    assert "| ≥ 0.4321 |" in study_note(find(study))
    assert value_in_study(held["candidates"][1], "") == "≥ 0.4321"
    del held["candidates"][1]["pruned"]  # an earlier version does not say
    assert value_in_study(held["candidates"][1], "") == "0.4321"


def test_confirm_trains_pruned_presets_too_and_knows_that_they_were():
    study = study_of(trial_of("PRUNED", 0.3, preset="baseline"), trial_of("COMPLETE", 0.6, lr=2e-3))
    found = candidates(study, None, 1)  # the data is asked only for a study without presets
    assert [(each.name, each.pruned) for each in found] == [("trial 1", False), ("baseline", True)]


@pytest.mark.parametrize(
    ("size", "pairs", "layout", "names"),
    [
        (16, 100, "keypoint", ["baseline", "recommended", "aggressive", "conservative"]),
        (16, 100, "pose", ["baseline", "recommended", "aggressive", "conservative"]),
        (16, 10, "keypoint", []),  # fewer than a batch
        (15, 100, "keypoint", []),  # no multiple of the heads
    ],
)
def test_a_study_without_presets_is_compared_with_the_documented_ones_that_its_data_can_train(
    size, pairs, layout, names
):
    study = study_of(trial_of("COMPLETE", 0.6), settings=attrs_of()["settings"] | {"layout": layout})
    first, *found = candidates(study, SimpleNamespace(feature_size=size, parts={"train": range(pairs)}), 1)
    assert (first.name, [each.name for each in found]) == ("trial 0", names)
    assert {each.config.layout for each in found} <= {layout}
    assert any(each.config.use_spatial_attention for each in found) == (layout == "keypoint" and bool(names))
