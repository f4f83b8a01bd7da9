"""Options that several commands share."""

import click
import pytest
from click.testing import CliRunner

from face3d_tune.cli.option_types import Choice, SlotCount
from face3d_tune.cli.options import checkpoint_options
from face3d_tune.cli.run import run
from face3d_tune.config import DEFAULTS
from face3d_tune.data.pairs import Selection
from face3d_tune.search.retention import DEFAULT_KEEP
from face3d_tune.storage.retry import DEFAULT_TIMEOUT
from face3d_tune.storage.workers import DEFAULT_SILENCE
from face3d_tune.study.settings import DEFAULT_SEED
from face3d_tune.system import durations


@click.command()
@checkpoint_options
def command(**options):
    click.echo(repr(options))


@click.command()
@click.option("--amp", type=Choice(["fp16", "off"]))
def choosing(amp):
    click.echo(amp)


def given(*words, **environment):
    result = CliRunner().invoke(command, words, env={"FACE3D_TUNE_ARTIFACTS": None, **environment})
    return eval(result.output) if result.exit_code == 0 else result.output


def test_checkpoints_are_kept_of_every_epoch_in_a_folder_here():
    expected = {"artifacts": "face3d_tune_artifacts", "checkpoint_every": 0.0, "keep_checkpoints": 10}
    assert given() == expected


def test_another_place_also_from_the_environment():
    assert given("--artifacts", "s3://b/p")["artifacts"] == "s3://b/p"
    assert given(FACE3D_TUNE_ARTIFACTS="elsewhere")["artifacts"] == "elsewhere"
    assert given("--artifacts", "here", FACE3D_TUNE_ARTIFACTS="elsewhere")["artifacts"] == "here"


def test_none_keeps_no_checkpoints():
    assert given("--artifacts", "none")["artifacts"] is None
    assert given(FACE3D_TUNE_ARTIFACTS="none")["artifacts"] is None


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("90", 90.0), ("1.5s", 1.5), ("2m", 120.0), ("1h", 3600.0)])
def test_the_time_between_checkpoints_is_a_duration_or_nothing(text, seconds):
    assert given("--checkpoint-every", text)["checkpoint_every"] == seconds


@pytest.mark.parametrize("text", ["-1", "often", "nan", ""])
def test_another_time_is_refused(text):
    assert "is not a duration; expected seconds" in given("--checkpoint-every", text)


def test_a_duration_is_at_most_what_every_system_can_wait_for():
    assert durations.seconds("1000h") == 3_600_000
    assert [durations.seconds(text) for text in ("1001h", "99999999999h", f"{'9' * 400}s")] == [None] * 3


def test_how_many_best_weights_are_kept():
    assert given("--keep-checkpoints", "0")["keep_checkpoints"] == 0
    assert "is not in the range" in given("--keep-checkpoints", "-1")


def test_a_mistyped_choice_is_answered_with_the_nearest():
    result = CliRunner().invoke(choosing, ["--amp", "fp61"])
    assert "'fp61' is not one of 'fp16', 'off'; did you mean 'fp16'?" in result.output
    assert "did you mean" not in CliRunner().invoke(choosing, ["--amp", "zzzz"]).output


# What the help states is typed again, since `--help` may load neither numpy nor Optuna; here both are compared.
STATED = {
    "--split": Selection().split,
    "--min-yaw": Selection().min_yaw,
    "--turn-angle": Selection().turn_angle,
    "--keep-checkpoints": DEFAULT_KEEP,
    "--layout": DEFAULTS["layout"],
}


@pytest.mark.parametrize("option", STATED)
def test_an_option_states_the_default_that_the_program_has(option):
    (parameter,) = [each for each in run.params if option in each.opts]
    assert parameter.default == STATED[option]


def test_the_help_states_the_defaults_that_no_option_holds():
    stated = {each.opts[0]: each.help for each in run.params if isinstance(each, click.Option)}
    assert f"[default: {DEFAULT_SILENCE:g}s]" in stated["--worker-timeout"]
    assert f"[default: {DEFAULT_TIMEOUT / 60:g}m]" in stated["--storage-timeout"]
    assert f"[default: {DEFAULT_SEED}]" in stated["--seed"]


@pytest.mark.parametrize(("typed", "slots"), [("auto", None), ("1", 1), ("012", 12), (3, 3)])
def test_slots_are_a_number_or_left_to_the_program(typed, slots):
    assert SlotCount().convert(typed, None, None) == slots


@pytest.mark.parametrize("typed", ["0", "000", "-1", "1.5", "many", "", "²", "9" * 5000])
def test_another_number_of_slots_is_refused(typed):
    """Python reads no number of 5,000 digits."""
    with pytest.raises(click.BadParameter, match="is not in range; expected auto or a whole number of at least 1"):
        SlotCount().convert(typed, None, None)
