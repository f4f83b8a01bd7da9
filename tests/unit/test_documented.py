"""Which scripts are the documented trainer, and which config their flags mean."""

import pytest
from stand_in_parsers import NEW_SCRIPT, OLD_SCRIPT
from users_repo import HERE, PRESENT_SCRIPT, REAL_SCRIPT

from face3d_tune.config import TrialConfig
from face3d_tune.errors import ConfigError
from face3d_tune.script.documented import DocumentedValues, is_documented
from face3d_tune.script.flags import DOCUMENTED, read_script

HABITS = sorted(set((HERE / "scripts" / "habits").glob("*.py")) - {HERE / "scripts" / "habits" / "event_writer.py"})
OWN = ("save_dir", "log_dir", "epochs")


def config(path, values=None, layout="keypoint"):
    return DocumentedValues(read_script(path), values or {}, OWN).config(layout=layout, pose_unit="degrees", epochs=1)


def written(folder, *changes):
    """The guide's copy with changes, each a text and what stands in its place."""
    text = OLD_SCRIPT.read_text(encoding="utf-8")
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path = folder / "train_3d.py"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", [OLD_SCRIPT, NEW_SCRIPT, REAL_SCRIPT, PRESENT_SCRIPT], ids=lambda path: path.name)
def test_every_copy_of_the_documented_trainer_is_known_by_its_flags(path):
    assert is_documented(read_script(path))
    assert is_documented(DOCUMENTED)


@pytest.mark.parametrize("path", HABITS, ids=lambda path: path.name)
def test_other_scripts_are_not(path):
    assert not is_documented(read_script(path))


@pytest.mark.parametrize("flag", ["mse_weight", "nhead", "num_layers"])
def test_a_script_that_lacks_a_flag_of_every_copy_is_another_trainer(tmp_path, flag):
    assert not is_documented(read_script(written(tmp_path, (f'"--{flag}"', '"--something"'))))


def test_what_a_command_does_not_set_has_the_scripts_own_default():
    found = config(PRESENT_SCRIPT, {"lr": 3e-4, "num_decoder_layers": 6, "use_pose_attention": True, "dropout": 0})
    assert found == TrialConfig(
        d_model=512,
        dim_feedforward=2048,
        num_layers=6,
        dropout=0.0,
        use_pose_attention=True,
        epochs=1,
        lr=3e-4,
        weight_decay=1e-4,
        mse_weight=0.1,
        cosine_weight=0.9,
        scheduler_type="cosine",
        scheduler_patience=7,
        scheduler_min_lr=1e-6,
        warmup_epochs=0,  # the copy has 10
        early_stopping_patience=30,
        early_stopping_min_delta=1e-4,
    )


def test_what_an_older_copy_cannot_say_is_as_the_built_in_trainer_has_it_by_default(tmp_path):
    old = written(
        tmp_path, ('parser.add_argument("--use_pose_attention"', 'parser.add_argument("--pose"'), ("loss_type", "kind")
    )
    found = config(old, {"d_model": 64, "dim_feedforward": 128})
    assert (found.use_pose_attention, found.loss_type, found.scheduler_type) == (False, "combined", "plateau")


def test_a_pose_layout_has_no_spatial_attention_whatever_the_flag_says():
    assert not config(PRESENT_SCRIPT, {"use_spatial_attention": True}, "pose").use_spatial_attention


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"scheduler_type": "step"}, "the built-in trainer has no scheduler_type = step"),
        ({"lr": 0.0}, "lr = 0.0 is out of range"),
        ({"lr": "fast"}, "lr = 'fast' has the wrong type; expected a number"),
        ({"nhead": 7}, "nhead = 7 does not divide d_model = 512"),
    ],
)
def test_values_that_the_built_in_trainer_does_not_have_are_named(values, said):
    with pytest.raises(ConfigError, match=said):
        config(PRESENT_SCRIPT, values)


def test_a_flag_of_the_copys_own_may_keep_its_default_but_not_be_set(tmp_path):
    added = 'parser.add_argument("--margin", type=float, default=0.0)\n    parser.add_argument("--lr"'
    path = written(tmp_path, ('parser.add_argument("--lr"', added))
    assert DocumentedValues(read_script(path), {}, OWN).others == ("--margin",)
    assert config(path).lr == config(OLD_SCRIPT).lr
    with pytest.raises(ConfigError, match="the built-in trainer has no margin"):
        config(path, {"margin": 0.5})


@pytest.mark.parametrize("path", [OLD_SCRIPT, NEW_SCRIPT, REAL_SCRIPT, PRESENT_SCRIPT], ids=lambda path: path.name)
def test_the_known_copies_have_no_flag_that_the_built_in_trainer_lacks(path):
    assert DocumentedValues(read_script(path), {}, OWN).others == ()


def test_a_default_that_only_running_the_script_would_show_is_said(tmp_path):
    path = written(tmp_path, ('"--lr", type=float, default=1e-4', '"--lr", type=float, default=best()'))
    assert config(path, {"lr": 0.5}).lr == 0.5
    with pytest.raises(ConfigError, match="the default of --lr cannot be read from the source of "):
        config(path)


def test_limits_of_the_yaw_are_those_that_are_set():
    def limits(**values):
        return DocumentedValues(read_script(NEW_SCRIPT), values, OWN).limits

    assert limits() == (0.0, None)
    assert limits(min_yaw_angle=20, max_yaw_angle=45.0) == (20.0, 45.0)
    assert limits(max_yaw_angle=float("inf")) == (0.0, None)
    assert DocumentedValues(read_script(OLD_SCRIPT), {}, OWN).limits == (0.0, None)
