"""What a report says, with numbers worked out by hand, in every form and language."""

import json
import re
import tomllib
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter

import pytest
from reported import searched, study_of, trial_of

import face3d_tune.readings
import face3d_tune.report
from face3d_tune.findings import find
from face3d_tune.importance import FEWEST
from face3d_tune.report import report
from face3d_tune.report.blocks import number, rich
from face3d_tune.report.content import Content, content
from face3d_tune.report.svg import tick_text, ticks
from face3d_tune.report.words import Words

MADE = datetime(2026, 1, 2, 3, 4)
WORDS = {
    language: tomllib.loads(Path(face3d_tune.report.__file__).with_name(f"{language}.toml").read_text(encoding="utf-8"))
    for language in ("en", "zh")
}
ANGRY = '<script>alert("x")</script> & 人脸|`{0}`**\n'
STUDIES = {
    "searched": lambda: study_of(*searched()),
    "without histories": lambda: study_of(*searched(history=False)),
    "empty": study_of,
    "running": lambda: study_of(trial_of("RUNNING"), trial_of("WAITING")),
    "failed": lambda: study_of(trial_of("FAIL"), trial_of("FAIL")),
    "pruned": lambda: study_of(trial_of("PRUNED", 0.3), trial_of("PRUNED", 0.2, preset="baseline")),
    "one trial": lambda: study_of(trial_of("COMPLETE", 0.6)),
    "best is a preset": lambda: study_of(trial_of("COMPLETE", 0.6, preset="baseline"), trial_of("COMPLETE", 0.5)),
    "training pairs": lambda: study_of(*searched(), data={"split": "none"}),
    "imported": lambda: study_of(
        trial_of("COMPLETE", 0.6, history=False, origin="imported", cosine_by_yaw={}, seed=None)
    ),
    "angry names": lambda: study_of(*searched(), trial_of("COMPLETE", 0.1, preset=ANGRY), name=ANGRY),
}


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
    assert "10 of the 10 other completed trials beat every preset too" in said
    assert "the next one is 0.0550 behind" in said


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


def test_the_commands_train_the_best_trial_on_poses_in_its_unit():
    held = held_by(study_of(*searched()))
    assert held.commands[0] == ["face3d-tune", "data", "convert", "faces", "faces-radians", "--pose-unit", "radians"]
    assert held.commands[1][:4] == ["python", "train_transformer3D/train_3d.py", "--data_dir", "faces-radians"]
    assert held.commands[1][held.commands[1].index("--lr") + 1] == "0.003"


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
    source = Path(face3d_tune.readings.__file__).read_text(encoding="utf-8")
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
    assert held.causes == {"diverged": 2, "out_of_memory": 1, "error": 1, "queued_again": 0}
    assert held.follows == before
    repeated = " ".join(held.repeat)
    assert "--from stage1-lr" in repeated
    without = page_of(study_of(trial_of("COMPLETE", 0.6))).text
    assert "Of those that failed" not in without
    assert "ended: with the config" not in without


def test_a_search_for_a_target_that_must_hold_is_repeated_as_one():
    effort = {"trials": 20, "target": 0.8, "target_epochs": 5, "sampler": "tpe", "pruner": "median"}
    assert "--target 0.8 --target-epochs 5" in " ".join(held_by(study_of(*searched(), effort=effort)).repeat)


def test_times_and_counts_in_words():
    say = Words("en")
    assert [say.duration(seconds) for seconds in (3.25, 61, 600, 9000)] == ["3.2 s", "61 s", "10 min", "2.5 h"]
    assert say.text("at_most", n=1000) == "1,000 at most"
    assert [say.text("numbers", n=count) for count in (1, 2)] == ["1 number", "2 numbers"]


def test_ticks_are_round():
    assert [tick_text(each) for each in ticks(0.17, 0.68)] == ["0.2", "0.4", "0.6"]
    assert [tick_text(each, log=True) for each in ticks(1e-5, 3e-3, log=True)] == ["1e-5", "1e-4", "1e-3"]
    assert ticks(5.0, 5.0) == [5.0]
