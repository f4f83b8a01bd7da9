"""A report on two studies: numbers stand beside each other where they compare, and what differs is named."""

import json
from datetime import datetime

import pytest
from command_line import call
from optuna.distributions import FloatDistribution
from stored_script import script_trial, searched_script, study_of_script
from stored_study import attrs_of, searched, study_of, trial_of

from face3d_tune.analysis.findings import find
from face3d_tune.report.html import to_html
from face3d_tune.report.render import is_report, report_two
from face3d_tune.report.side_by_side import tell_two
from face3d_tune.report.two_studies import Step, configs, two_studies
from face3d_tune.storage.database import Storage
from face3d_tune.study import space

MADE = datetime(2026, 1, 31, 12).astimezone()


def pair_of(first, second, names=("one", "two")):
    return two_studies(find(first), find(second), names, MADE)


def told(pair, language="en"):
    """The sections of the report by name, as Markdown would have them: texts and rows."""
    return {section.name: section.blocks for section in tell_two(pair, language).sections}


def second():
    """A study on the same data with another budget: better, with another winner, and a preset that the first lacks."""
    trials = [
        trial_of("COMPLETE", 0.5, minute=0, preset="baseline", epochs=10),
        trial_of("COMPLETE", 0.8, minute=1, lr=4e-3, epochs=20),
        trial_of("PRUNED", 0.3, minute=2, preset="aggressive", epochs=5),
    ]
    return study_of(*trials, effort=attrs_of()["effort"] | {"trials": 9}, name="other")


def test_what_differs_is_listed_and_equal_data_and_value_compare():
    pair = pair_of(study_of(*searched()), second())
    assert [(each.setting, each.first, each.second) for each in pair.differences] == [("budget", "50", "9")]
    assert pair.comparable
    assert pair.lead == pytest.approx(0.1)  # 0.8 against 0.7


@pytest.mark.parametrize(
    ("language", "searches", "fixed", "on", "off"),
    [
        ("en", ("range of learning rate", "1e-4 … 0.01, log"), "fixed: spatial attention", "on", "off"),
        ("zh", ("范围：学习率", "1e-4 … 0.01（对数）"), "固定：空间注意力", "开", "关"),
    ],
)
def test_ranges_and_fixed_values_that_differ_are_in_the_words_of_the_language(language, searches, fixed, on, off):
    settings = attrs_of()["settings"]
    wider = settings["space"] | space.to_stored({"lr": FloatDistribution(1e-4, 1e-2, log=True)})
    both = (
        settings | {"fixed": {"use_spatial_attention": False}},
        settings | {"fixed": {"use_spatial_attention": True}, "space": wider},
    )
    pair = pair_of(*(study_of(*searched(), settings=each) for each in both))
    _, table = told(pair, language)["do_they_compare"]
    cells = {cells[0]: tuple(cells[1:]) for cells in table.rows}
    assert cells[fixed] == (off, on)
    assert cells[searches[0]][1] == searches[1]


@pytest.mark.parametrize(
    ("changed", "setting"),
    [
        ({"data_fingerprint": "ff"}, "data"),
        ({"settings": attrs_of()["settings"] | {"folds": 3}}, "folds"),
        ({"settings": attrs_of()["settings"] | {"objective": "identity"}}, "metric"),
    ],
)
def test_values_of_other_data_folds_or_objective_do_not_stand_beside_each_other(changed, setting):
    pair = pair_of(study_of(*searched()), study_of(*searched(), **changed))
    assert [each.setting for each in pair.differences if each.of_values] == [setting]
    assert (pair.comparable, pair.lead) == (False, None)
    sections = told(pair)
    assert not {"two_presets", "two_curves"} & sections.keys()
    assert sections["do_they_compare"][0].kind == "warning"
    assert {"two_best", "two_configs"} <= sections.keys()


def test_a_script_and_the_built_in_trainer_do_not_compare():
    pair = pair_of(study_of(*searched()), study_of_script(*searched_script()))
    assert {"trainer", "script", "metric", "data"} <= {each.setting for each in pair.differences if each.of_values}
    assert pair.lead is None
    for language in ("en", "zh"):
        assert to_html(tell_two(pair, language))


def test_the_best_so_far_counts_the_trials_and_the_epochs_of_all():
    """Trials of 10, 20 and 5 epochs; the third is pruned, so no step is its own, but its epochs count at the end."""
    side = pair_of(study_of(*searched()), second()).second
    assert list(side.steps) == [Step(1, 10, 0.5), Step(2, 30, 0.8)]
    assert (side.trials, side.epochs) == (3, 35)


def test_where_lower_is_better_a_lower_best_leads():
    first = study_of_script(script_trial("COMPLETE", [0.5], direction="minimize"), direction="minimize")
    lower = study_of_script(script_trial("COMPLETE", [0.4], direction="minimize"), direction="minimize", name="lower")
    pair = pair_of(first, lower)
    assert pair.lead == pytest.approx(0.1)
    (said, *_) = told(pair)["do_they_compare"]
    assert "if it read the same data" in "".join(text for _, text in said.text)
    (lead, *_) = [block for block in told(pair)["two_best"] if hasattr(block, "text")]
    assert "".join(text for _, text in lead.text) == "The best of two is better by 0.1000 than that of one."


def sentences(blocks):
    return ["".join(text for _, text in block.text) for block in blocks if hasattr(block, "text")]


def test_the_first_study_may_lead_and_each_says_what_its_best_would_likely_reach():
    repeated = [trial_of("COMPLETE", value, lr=5e-2, seed=n) for n, value in enumerate((0.6, 0.62, 0.64, 0.66))]
    lead, _, likely = sentences(told(pair_of(second(), study_of(*searched(), *repeated)))["two_best"])
    assert lead == "The best of one is better by 0.1000 than that of two."
    assert likely.startswith("two: trained again, trial 12 would likely reach about 0.")
    assert "; it was seen at 0.7000. " in likely


def test_two_studies_without_a_best_trial_have_no_configs_to_compare():
    sections = told(pair_of(study_of(), study_of(name="other")))
    assert "two_configs" not in sections
    assert "two_configs" in told(pair_of(study_of(), second()))


def test_winning_configs_show_only_what_differs():
    pair = pair_of(study_of(*searched()), second())
    rows, equal = configs(pair)
    assert sorted(name for name, _, _ in rows) == ["lr", "pose_unit"]
    assert equal == len(pair.first.content.best.config) - 2


def test_presets_that_one_of_them_lacks_have_a_dash_and_pruned_ones_say_so():
    (table,) = told(pair_of(study_of(*searched()), second()))["two_presets"]
    cells = {row[0]: tuple(row[1:]) for row in table.rows}
    assert cells["baseline"] == ("0.5500", "0.5000")
    assert cells["recommended"] == ("0.5200", "–")
    assert cells["aggressive"] == ("–", "0.3000 (pruned)")
    assert cells["no model"] == ("0.5000", "0.5000")


def test_json_has_both_studies_and_their_differences():
    found = json.loads(report_two(find(study_of(*searched())), find(second()), ("one", "two"), "json", "en", MADE))
    assert is_report(json.dumps(found))
    assert (found["comparable"], found["lead_of_second"]) == (True, pytest.approx(0.1))
    assert [study["name"] for study in found["studies"]] == ["one", "two"]
    assert found["studies"][1]["steps"][-1] == {"trials": 2, "epochs": 30, "value": 0.8}
    assert found["differences"] == [{"setting": "budget", "first": "50", "second": "9", "of_values": False}]


def test_studies_of_two_storages_are_put_beside_each_other_as_typed(tmp_path):
    urls = [f"sqlite:///{(tmp_path / name).as_posix()}" for name in ("a.db", "b.db")]
    for url, trials in zip(urls, (searched(), searched()), strict=True):
        with Storage.parse(url).opened(create=True) as storage:
            study_of(*trials, storage=storage)
    answer = call("report", "faces", urls[1], "--storage", urls[0], "-o", "two.html", cwd=tmp_path)
    assert (answer.code, answer.err) == (0, "")
    page = (tmp_path / "two.html").read_text(encoding="utf-8")
    assert f"faces ({urls[0]})" in page
    assert page.count("<svg") >= 2
    chinese = call("report", "faces", f"{urls[1]}#faces", "--storage", urls[0], "-o", "-", "--lang", "zh", cwd=tmp_path)
    assert "它们可以比较吗？" in chinese.out
    refused = call("report", "a", "b", "c", "--storage", urls[0], cwd=tmp_path)
    assert refused.code == 2
    assert "a report is on one study, or on two side by side; expected STUDY, or STUDY STUDY" in refused.err
