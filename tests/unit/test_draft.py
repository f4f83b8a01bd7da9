"""The study file that is written for a script: it reads back, and holds what was found."""

import os
import tomllib
from pathlib import Path

import pytest
from stand_in_parsers import NEW_SCRIPT, OLD_SCRIPT

from face3d_tune.errors import StudyFileError, UnsearchableError
from face3d_tune.script import draft, guesses, study_file
from face3d_tune.script.draft import Draft
from face3d_tune.script.flags import read_script
from face3d_tune.script.metrics import Metric, ProbedNumber
from face3d_tune.script.probe import Probe
from face3d_tune.script.study_file import read

SCRIPTS = Path(__file__).parent.parent / "scripts"
ALL = [
    path
    for path in sorted(SCRIPTS.rglob("*.py"))
    if path.name not in ("no_flags.py", "event_writer.py") and "models" not in path.parts
]
COSINE = ProbedNumber("tensorboard", "Val/Cosine", (0.51234, 0.61234), "epoch", late=False)
LOSS = ProbedNumber("tensorboard", "Val/Loss", (0.5, 0.4), "epoch", late=False)
ONCE = ProbedNumber("printed", "samples", (100.0,), "once", late=False)
PROBE = Probe((COSINE, LOSS, ONCE), 40.0, (), None, ())


def written(tmp_path, script, *words, metric=None, probe=None, python=None):
    """The study file of a script in tmp_path, as text and read back."""
    parsed = read_script(script)
    out = tmp_path / "mine.toml"
    text = draft.write(Draft(out, parsed, guesses.plan(parsed, words), metric, probe, python))
    out.write_text(text, encoding="utf-8")
    return text, read(out)


def made(tmp_path, *declarations):
    path = tmp_path / "train 3D.py"
    path.write_text("".join(f"p.add_argument({each})\n" for each in declarations))
    return path


@pytest.mark.parametrize("script", ALL, ids=[path.stem for path in ALL])
@pytest.mark.parametrize("tried", [False, True])
def test_the_file_of_every_script_reads_back_and_begins_with_the_scripts_own_values(tmp_path, script, tried):
    metric, probe = (Metric(COSINE, "maximize", "Val/Loss"), PROBE) if tried else (None, None)
    _, file = written(tmp_path, script, metric=metric, probe=probe)
    flags = read_script(script).flags
    assert file.script.path == script
    (defaults,) = [trial for trial in file.initial_trials() if trial.name == "defaults"]
    assert {**defaults.params, **defaults.overrides} == {name: flags[name].default for name in file.space}
    assert not file.space.keys() & {file.script.epochs_flag, file.script.seed_flag, *file.script.folder_flags}


def test_the_documented_copies_are_searched_by_the_guides_parameters(tmp_path):
    text, file = written(tmp_path, NEW_SCRIPT, metric=Metric(COSINE, "maximize", "Val/Loss"), probe=PROBE)
    script = file.script
    assert {"lr", "mse_weight", "cosine_weight", "dropout", "weight_decay", "scheduler_factor"} <= file.space.keys()
    assert (script.metric, script.source, script.direction) == ("Val/Cosine", "tensorboard", "maximize")
    assert script.keep_lowest == "Val/Loss"
    assert (script.epochs_flag, script.resume_flag) == ("epochs", "resume")
    assert script.folder_flags == ("save_dir", "log_dir")
    assert '#   "Val/Loss" from tensorboard, last 0.4' in text
    assert "samples" not in text  # which came only once


def test_a_preset_of_the_guide_that_lies_outside_a_range_is_left_out(tmp_path):
    flags = ["'--lr', type=float, default=1e-2", "'--mse_weight', type=float, default=0.5"]
    flags.append("'--cosine_weight', type=float, default=0.5")
    _, file = written(tmp_path, made(tmp_path, *flags))
    assert list(file.presets) == ["defaults"]  # 1e-2 / 30 is above the lr of every preset
    _, file = written(tmp_path, OLD_SCRIPT)
    guides = ["baseline", "recommended", "aggressive", "conservative", "quickstart"]
    assert list(file.presets) == [*guides, "defaults"]
    _, file = written(tmp_path, OLD_SCRIPT, "--num_layers", "1", "--batch_size", "32")
    assert list(file.presets) == ["defaults"]  # the others have four layers


def test_the_offered_rows_are_valid_once_their_comment_is_taken_away(tmp_path):
    text, file = written(tmp_path, NEW_SCRIPT)
    head, _, rows = text.partition("# Not searched; remove the # of a row to search it as well.\n")
    rows, _, tail = rows.partition("\n# The first trial")
    out = tmp_path / "mine.toml"
    out.write_text(head + rows.replace("# ", "", 1).replace("\n# ", "\n") + "\n# The first trial" + tail)
    assert read(out).space.keys() > file.space.keys()


def test_a_number_of_test_data_or_of_few_digits_is_said_to_be_one(tmp_path):
    script = made(tmp_path, "'--lr', type=float, default=0.1")
    number = ProbedNumber("printed", "test_acc", (0.51, 0.62), "epoch", late=False)
    text, _ = written(tmp_path, script, metric=Metric(number, "maximize"), probe=PROBE)
    assert "# It is of test data" in text
    assert "# It has few digits" in text
    text, _ = written(tmp_path, script, metric=Metric(COSINE, "maximize"), probe=PROBE)
    assert "# It " not in text


def test_what_a_person_types_stays_fixed(tmp_path):
    script = made(tmp_path, "'--data'", "'--epochs', type=int", "'--lr', type=float, default=0.1", "'--amp', type=int")
    _, file = written(tmp_path, script, "--data", 'a\\b"c\n数', "--amp=3", "--epochs", "7", "pos", "-q")
    assert file.fixed == {"data": 'a\\b"c\n数', "amp": 3}
    assert file.epochs == 7
    assert file.script.arguments == ("pos", "-q")


def test_a_program_folders_to_import_from_and_a_checkpoint_are_written(tmp_path):
    probe = Probe((COSINE,), 0.1, ("/a", "/b"), "*.npz", ())
    script = made(tmp_path, "'--lr', type=float, default=0.1", "'--resume'")
    _, file = written(tmp_path, script, metric=Metric(COSINE, "maximize"), probe=probe, python="python3")
    assert file.script.environment == {"PYTHONPATH": os.pathsep.join(("/a", "/b"))}
    assert file.script.checkpoint == "*.npz"
    assert file.script.python == "python3"


@pytest.mark.parametrize(
    ("seconds", "epochs", "limit"),
    [
        (1.0, 100, 600.0),  # at least ten minutes
        (40.0, 30, 3600.0),  # 3 · 40 s · 30
        (100.0, 100, 9 * 3600.0),  # 30,000 s, in whole hours
    ],
)
def test_the_time_limit_is_three_times_what_the_probe_lets_expect(tmp_path, seconds, epochs, limit):
    script = made(tmp_path, f"'--epochs', type=int, default={epochs}", "'--lr', type=float, default=0.1")
    probe = Probe((COSINE,), seconds, (), None, ())
    _, file = written(tmp_path, script, metric=Metric(COSINE, "maximize"), probe=probe)
    assert file.script.time_limit == limit
    assert file.epochs == epochs


def test_the_path_is_relative_to_the_file(tmp_path):
    (tmp_path / "code").mkdir()
    script = made(tmp_path / "code", "'--lr', type=float, default=0.1")
    text, _ = written(tmp_path, script)
    assert tomllib.loads(text)["script"]["path"] == "code/train 3D.py"


def test_without_a_usual_flag_the_first_that_can_be_searched_is(tmp_path):
    _, file = written(tmp_path, made(tmp_path, "'--depth', type=int, default=3", "'--k', type=int, default=5"))
    assert list(file.space) == ["depth"]


def test_a_flag_whose_name_is_no_bare_key_of_toml_is_searched(tmp_path):
    declared = ["'--model.dropout', type=float, default=0.1", "'--学习率', type=float, default=1e-3"]
    _, file = written(tmp_path, made(tmp_path, *declared), "--学习率", "0.01")
    assert list(file.space) == ["model.dropout"]
    assert file.fixed == {"学习率": 0.01}


@pytest.mark.parametrize(
    "declared",
    [
        "'--norm', choices=['batch', 'layer'], default='none'",
        "'--augment', type=str2bool, default='no'",
        "'--use_bias', action='store_true', default=1",
        "'--scale', type=float, default=1e400",
        "'--warmup_epochs', type=int, default=-1",
        "'--dropout', type=float, default=-1.0",
        "'--weight_decay', type=float, default=-1.0",
        "'--epochs', type=float, default=1e400",
        "'--key', type=bool, default=b'x'",
    ],
)
def test_a_flag_whose_default_no_trial_could_have_is_not_offered(tmp_path, declared):
    text, file = written(tmp_path, made(tmp_path, "'--lr', type=float, default=1e-3", declared))
    assert list(file.space) == ["lr"]
    assert "Not searched" not in text


@pytest.mark.parametrize(
    "declared", ["'--aux_weight', type=float, default=0.0126", "'--warmup', type=float, default=0.333"]
)
def test_a_default_at_an_end_of_its_range_is_not_rounded_out_of_it(tmp_path, declared):
    assert len(written(tmp_path, made(tmp_path, declared))[1].space) == 1


def test_true_and_false_may_be_the_choices(tmp_path):
    declared = "'--bias', type=str2bool, choices=[True, False], default=True"
    text, file = written(tmp_path, made(tmp_path, declared))
    assert (file.space["bias"].choices, file.presets["defaults"]) == ((True, False), {"bias": True})
    with pytest.raises(StudyFileError, match="bias = 1 is unknown; expected one of True, False"):
        study_file.parse(tmp_path / "mine.toml", tomllib.loads(text.replace("true, false", "1, false")))


def test_none_among_the_choices_is_none_that_a_trial_could_type(tmp_path):
    declared = "'--scheduler', choices=['step', 'cosine', None], default='step'"
    assert written(tmp_path, made(tmp_path, declared))[1].space["scheduler"].choices == ("step", "cosine")


def test_a_script_with_nothing_to_search_is_refused(tmp_path):
    with pytest.raises(UnsearchableError, match=r"has no flag left that a search could vary$") as caught:
        written(tmp_path, made(tmp_path, "'--name'", "'--lr', type=float, default=0.1"), "--lr", "1")
    assert caught.value.exit_code == 2
