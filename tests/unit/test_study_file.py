"""Study files: what each says, every mistake in one with its file and key, and that what is searched acts."""

import re
from dataclasses import replace

import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution

from face3d_tune.config import TrialConfig
from face3d_tune.errors import ConfigError, StudyFileError
from face3d_tune.search.algorithms import make_pruner, make_sampler
from face3d_tune.study import study_file
from face3d_tune.study.tables import Component
from face3d_tune.training.losses import combine
from face3d_tune.training.plain import Trainer

SHIPPED = ["default", "explore", "identity", "size", "stage1-lr", "stage2-loss", "stage3-capacity"]
PRESETS = ["baseline", "recommended", "aggressive", "conservative", "quickstart"]
WITH_PRESETS = [name for name in SHIPPED if name != "size"]  # which begins with what another search has found
CPU = torch.device("cpu")

# trainer contract §6, written out by hand, on 512-number embeddings.
COMMON = {
    "d_model": 512,
    "dim_feedforward": 2048,
    "layout": "keypoint",
    "nhead": 8,
    "num_layers": 4,
    "dropout": 0.1,
    "pose_unit": "degrees",
    "batch_size": 32,
    "epochs": 100,
    "weight_decay": 1e-5,
    "loss_type": "combined",
    "early_stopping_min_delta": 1e-5,
    "use_spatial_attention": False,
    "use_pose_attention": False,
}
RECOMMENDED = {
    "lr": 5e-5,
    "mse_weight": 0.3,
    "cosine_weight": 0.7,
    "scheduler_factor": 0.2,
    "scheduler_patience": 3,
    "scheduler_min_lr": 1e-7,
    "early_stopping_patience": 15,
    "use_mixed_precision": True,
}
DOCUMENTED = {
    "baseline": {
        "lr": 1e-4,
        "mse_weight": 0.5,
        "cosine_weight": 0.5,
        "scheduler_factor": 0.5,
        "scheduler_patience": 5,
        "scheduler_min_lr": 0.0,
        "early_stopping_patience": 0,
        "use_mixed_precision": False,
    },
    "recommended": RECOMMENDED,
    "aggressive": {
        "lr": 2e-5,
        "mse_weight": 0.2,
        "cosine_weight": 0.8,
        "scheduler_factor": 0.1,
        "scheduler_patience": 2,
        "scheduler_min_lr": 5e-8,
        "early_stopping_patience": 10,
        "use_mixed_precision": True,
        "use_spatial_attention": True,
        "use_pose_attention": True,
    },
    "conservative": {
        "lr": 5e-5,
        "mse_weight": 0.4,
        "cosine_weight": 0.6,
        "scheduler_factor": 0.3,
        "scheduler_patience": 4,
        "scheduler_min_lr": 1e-7,
        "early_stopping_patience": 20,
        "use_mixed_precision": False,
    },
    "quickstart": RECOMMENDED,
}

# What each searched parameter changes, of what `signature` sees of a training.
ACTS_ON = {
    "lr": {"weights", "decay"},
    "cosine_weight": {"loss", "weights"},
    "scheduler_factor": {"decay"},
    "scheduler_patience": {"decay"},
    "scheduler_min_lr": {"decay"},
    "dropout": {"weights"},
    "weight_decay": {"weights"},
    "use_spatial_attention": {"shapes", "weights"},
    "use_pose_attention": {"shapes", "weights"},
    "pose_unit": {"poses", "weights"},
    "optimizer": {"weights"},
    "scheduler_type": {"decay"},
    "warmup_epochs": {"weights", "decay"},
    "focal_gamma": {"weights"},
    "angle_weight": {"weights"},
    "identity_weight": {"weights"},
    "inputs": {"weights"},
    "oversampling": {"weights"},
    "view_mixing": {"weights"},
    "feature_noise": {"weights"},
    "pose_jitter": {"weights"},
    "landmark_noise": {"weights"},
    "num_layers": {"shapes", "weights"},
    "width": {"shapes", "weights"},
}


def write(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def read(tmp_path, text):
    return study_file.read(str(write(tmp_path, text)))


def prepare(path):
    """Read a file and build what it names, as a search does before it stores anything."""
    file = study_file.read(str(path))
    make_sampler(file, 0)
    make_pruner(file)


def message_of(tmp_path, text):
    """What a file with this content is refused with, without its path at the beginning."""
    with pytest.raises(StudyFileError) as caught:
        prepare(write(tmp_path, text))
    path, message = caught.value.message.split(": ", 1)
    assert path == str(tmp_path / "mine.toml")
    return message


def configs_of(file, *, layout="keypoint"):
    bound = file.bind(layout, 512, 100)
    return {trial.name: bound.config(trial.params, trial.overrides) for trial in bound.initial_trials()}


def low_config(file, data, **changes):
    """The low end of a space, with changes, on small data."""
    values = {name: space_end(row) for name, row in file.space.items()} | changes
    return file.bind("keypoint", data.feature_size, 3).config(values, {})


def space_end(row, end=0):
    return (row.choices if hasattr(row, "choices") else (row.low, row.high))[end]


def signature(config, data):
    """What one epoch, and then losses that stand still, do to a training, part by part."""
    trainer = Trainer(config, data, seed=1, device=CPU)
    trainer.train_epoch()
    rates = []
    for _ in range(60):
        trainer.scheduler.step(1e9)
        rates.append(trainer.lr)
    state = trainer.model.state_dict()
    return {
        "shapes": {name: tuple(tensor.shape) for name, tensor in state.items()},
        "weights": [tensor.tolist() for tensor in state.values()],
        "poses": (trainer.train.poses.tolist(), trainer.validation.poses.tolist()),
        "loss": combine(config, 0.25, 0.5),
        "decay": rates,
    }


# What a file says


def test_a_file_says_what_is_searched_fixed_tried_first_and_spent(tmp_path):
    file = read(
        tmp_path,
        """
        [study]
        description = "One of mine"
        presets = ["recommended", "baseline"]
        [budget]
        trials = 7
        epochs = 3
        [sampler]
        name = "random"
        [pruner]
        name = "percentile"
        percentile = 25.0
        [fixed]
        batch_size = 16
        dropout = 0
        [space]
        lr = { low = 1e-5, high = 1e-3, scale = "log" }
        [presets.home]
        lr = 2e-4
        weight_decay = 1
        """,
    )
    assert (file.name, file.description, file.trials, file.epochs) == ("mine", "One of mine", 7, 3)
    assert file.sampler == Component("random", {})
    assert file.pruner == Component("percentile", {"percentile": 25.0})
    assert file.fixed == {"batch_size": 16, "dropout": 0.0}
    assert list(file.space) == ["lr"]
    assert list(file.presets) == ["recommended", "baseline", "home"]
    home = configs_of(file)["home"]
    assert (home.lr, home.weight_decay, home.batch_size, home.dropout) == (2e-4, 1.0, 16, 0.0)


def test_a_file_that_only_says_what_is_searched_has_sensible_defaults(tmp_path):
    file = read(tmp_path, "space.lr = [1e-4, 1e-3]")
    assert (file.trials, file.epochs, file.description, file.presets) == (50, 100, "", {})
    assert (file.sampler, file.pruner) == (Component("tpe", {}), Component("none", {}))


def test_a_file_may_begin_with_the_mark_that_windows_editors_write(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbf[space]\nlr = [1e-4, 1e-3]\n")
    assert list(study_file.read(str(path)).space) == ["lr"]


def test_a_preset_of_the_file_takes_the_scripts_default_for_what_it_does_not_name(tmp_path):
    file = read(tmp_path, "[space]\ndropout = { low = 0.0, high = 0.5 }\nlr = [1e-4, 1e-3]\n[presets.mine]\nlr = 1e-3")
    (trial,) = file.initial_trials()
    assert (trial.params, trial.overrides) == ({"dropout": 0.1, "lr": 1e-3}, {})


def test_a_choice_of_a_number_may_be_written_without_a_point_in_space_and_preset(tmp_path):
    text = "[space]\ndropout = [0, 0.1]\n[presets.a]\ndropout = 0\n[presets.b]\ndropout = 0.0"
    assert [trial.params for trial in read(tmp_path, text).initial_trials()] == [{"dropout": 0.0}] * 2
    baseline = read(tmp_path, 'study.presets = ["baseline"]\nspace.scheduler_min_lr = [0, 1e-7]')
    assert baseline.initial_trials()[0].params == {"scheduler_min_lr": 0.0}


def test_the_objective_is_the_cosine_unless_the_file_names_another(tmp_path):
    assert read(tmp_path, "space.dropout = [0.0, 0.1]").objective == "cosine"
    file = read(tmp_path, "study.objective = 'identity'\nspace.dropout = [0.0, 0.1]")
    assert file.objective == file.bind("keypoint", 16, 1).objective == "identity"


def test_the_width_of_a_model_follows_the_data_it_meets(tmp_path):
    file = read(tmp_path, "[fixed]\nnhead = 8\n[space]\nwidth = [1.0, 1.5]")
    sizes = {
        (width, size): file.bind("keypoint", size, 1).config({"width": width}, {}).d_model
        for width in (1.0, 1.5)
        for size in (512, 16)
    }
    assert sizes == {(1.0, 512): 512, (1.5, 512): 768, (1.0, 16): 16, (1.5, 16): 24}


# The study files that come with the package


def test_the_shipped_studies_are_the_default_everything_size_and_the_guides_three_stages():
    assert study_file.builtin_names() == SHIPPED


def test_the_study_of_size_has_parts_that_optuna_accepts_and_leaves_the_rest_to_the_study_before():
    file = study_file.read("size")
    assert (dict(file.fixed), file.initial_trials()) == ({}, [])
    assert file.space["width"].choices == (0.25, 0.5, 0.75, 1.0)
    make_sampler(file, 2**63)
    make_pruner(file)


@pytest.mark.parametrize("name", WITH_PRESETS)
def test_a_shipped_study_has_a_description_all_presets_in_order_and_parts_that_optuna_accepts(name):
    file = study_file.read(name)
    assert file.name == name
    assert len(file.description) > 10
    assert list(file.presets) == PRESETS
    assert [trial.name for trial in file.initial_trials()] == PRESETS
    assert not set(file.fixed) & set(file.space)
    make_sampler(file, 2**63)
    make_pruner(file)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", WITH_PRESETS)
def test_a_preset_trains_with_exactly_its_documented_values_whatever_the_study(name, preset):
    wanted = TrialConfig(**{**COMMON, **DOCUMENTED[preset]})
    assert configs_of(study_file.read(name))[preset] == wanted
    assert replace(wanted, lr=wanted.lr * (1 + 1e-15)) != wanted  # a rounding would show


@pytest.mark.parametrize("name", SHIPPED)
def test_optuna_is_told_only_values_inside_the_space(name):
    file = study_file.read(name)
    for trial in file.initial_trials():
        assert set(trial.params) | set(trial.overrides) >= set(file.space)
        for key, value in trial.params.items():
            row = file.space[key]
            assert value in row.choices if hasattr(row, "choices") else row.low <= value <= row.high


def test_only_the_zero_that_no_log_range_can_hold_is_kept_from_optuna():
    kept = {trial.name: trial.overrides for trial in study_file.read("default").initial_trials()}
    assert {name: set(values) & {"scheduler_min_lr"} for name, values in kept.items()} == {
        "baseline": {"scheduler_min_lr"},
        **{name: set() for name in PRESETS[1:]},
    }
    assert kept["baseline"]["scheduler_min_lr"] == 0.0
    assert kept["baseline"]["use_mixed_precision"] is False
    assert kept["aggressive"]["early_stopping_patience"] == 10


def test_the_default_study_searches_the_input_and_what_the_guide_turns():
    assert set(study_file.read("default").space) == {
        "inputs",
        "lr",
        "cosine_weight",
        "scheduler_factor",
        "scheduler_patience",
        "scheduler_min_lr",
        "dropout",
        "weight_decay",
        "use_spatial_attention",
        "use_pose_attention",
        "pose_unit",
    }


def test_explore_searches_the_default_space_size_and_the_guides_further_ideas():
    explore, default = study_file.read("explore"), study_file.read("default")
    beyond = {"optimizer", "scheduler_type", "warmup_epochs", "focal_gamma", "angle_weight", "oversampling"}
    beyond |= {"view_mixing", "feature_noise", "pose_jitter", "landmark_noise", "num_layers", "width"}
    assert set(explore.space) == set(default.space) | beyond
    assert (explore.sampler, explore.pruner) == (default.sampler, default.pruner)
    assert {**explore.fixed, "num_layers": 4} == default.fixed


def test_the_study_of_identity_is_the_default_with_the_identity_term_which_no_preset_has():
    file, default = study_file.read("identity"), study_file.read("default")
    assert dict(file.space) == {**default.space, "identity_weight": FloatDistribution(0.0, 0.5)}
    assert file.space["inputs"] == CategoricalDistribution(("view", "ridge", "kernel"))
    assert file.fixed == {**default.fixed, "identity_temperature": 0.1}
    assert (file.sampler, file.pruner, file.trials) == (default.sampler, default.pruner, default.trials)
    assert (file.objective, default.objective) == ("identity", "cosine")
    assert {trial.params["identity_weight"] for trial in file.initial_trials()} == {0.0}
    assert {trial.params["inputs"] for trial in file.initial_trials()} == {"view"}


def test_a_sampled_cosine_weight_brings_its_mse_weight():
    file = study_file.read("default")
    params = {name: space_end(row) for name, row in file.space.items()} | {"cosine_weight": 0.75}
    config = file.bind("keypoint", 512, 1).config(params, {})
    assert (config.cosine_weight, config.mse_weight) == (0.75, 0.25)


@pytest.mark.parametrize("name", WITH_PRESETS)
def test_the_pose_layout_drops_the_landmark_gate_from_space_fixed_values_and_presets(name):
    file = study_file.read(name)
    pose = file.bind("pose", 512, 100)
    assert "use_spatial_attention" not in {**pose.fixed, **pose.space}
    assert all("use_spatial_attention" not in preset for preset in pose.presets.values())
    assert set(file.fixed) | set(file.space) == {*pose.fixed, *pose.space, "use_spatial_attention"}
    for preset, config in configs_of(pose, layout="pose").items():
        wanted = {**COMMON, **DOCUMENTED[preset], "layout": "pose", "use_spatial_attention": False}
        assert config == TrialConfig(**wanted)
    with pytest.raises(ConfigError, match="use_spatial_attention"):
        pose.config({}, {"use_spatial_attention": True})
    keypoint = file.bind("keypoint", 512, 100)
    assert (keypoint.fixed, keypoint.space, keypoint.presets) == (file.fixed, file.space, file.presets)


def test_a_study_that_searches_nothing_the_pose_layout_has_is_refused_for_it(tmp_path):
    file = read(tmp_path, "space.use_spatial_attention = [false, true]")
    with pytest.raises(StudyFileError, match=r"mine\.toml: \[space\] holds only use_spatial_attention.*pose layout"):
        file.bind("pose", 512, 100)


@pytest.mark.parametrize(
    ("study", "name"), [(study, name) for study in SHIPPED for name in study_file.read(study).space]
)
def test_every_searched_parameter_changes_what_a_training_does_and_nothing_else(study, name, data):
    file = study_file.read(study)
    before = signature(low_config(file, data), data)
    again = signature(low_config(file, data), data)
    after = signature(low_config(file, data, **{name: space_end(file.space[name], -1)}), data)
    assert before == again
    assert {part for part in before if before[part] != after[part]} == ACTS_ON[name]


# Mistakes: each is refused with file and key

SPACE = "space.lr = [1e-4, 1e-3]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # tables and keys
        ("[spaces]\nlr = [1e-4]", "spaces is unknown; did you mean 'space'?"),
        ("[xyz]", "xyz is unknown"),
        (SPACE + "trials = 5", "trials is unknown"),
        (SPACE + "study.descripton = 'x'", "study.descripton is unknown; did you mean 'description'?"),
        (SPACE + "budget.trails = 5", "budget.trails is unknown; did you mean 'trials'?"),
        ("space.learning_rate = [1e-4]", "space.learning_rate is unknown"),
        ("space.droput = [0.1]", "space.droput is unknown; did you mean 'dropout'?"),
        (SPACE + "fixed.batchsize = 5", "fixed.batchsize is unknown; did you mean 'batch_size'?"),
        (SPACE + "fixed.epochs = 5", "fixed.epochs is unknown"),
        (SPACE + "fixed = 3", "fixed = 3 is not a table; expected [fixed]"),
        ("space = ['lr']", "space = ['lr'] is not a table; expected [space]"),
        # rows of the space
        ("[space]", "[space] is empty; a study needs at least one searched parameter"),
        ("", "[space] is empty; a study needs at least one searched parameter"),
        ("space.lr = 1e-4", "space.lr = 0.0001 is not a range; expected { low = …, high = … } or a list of choices"),
        ("space.lr = { low = 'x', high = 1 }", "space.lr = 'x' has the wrong type; expected a number"),
        ("space.lr = { low = 2, high = 1 }", "space.lr: low = 2 is above high = 1"),
        (
            "space.lr = { low = 0, high = 1, scale = 'log' }",
            "space.lr: low = 0 is not above 0, which a log scale needs",
        ),
        (
            "space.pose_unit = { low = 0, high = 1 }",
            "space.pose_unit has no order, so no range; expected a list of choices",
        ),
        ("space.dropout = { low = 0.0, high = 1.0 }", "space.dropout = 1.0 is out of range; expected at least 0"),
        ("space.dropout = [0.1, 1.5, 0.2]", "space.dropout = 1.5 is out of range; expected at least 0 and below 1"),
        ("space.lr = { low = 0.0, high = 1.0 }", "space.lr = 0.0 is out of range; expected a number above 0"),
        ("space.lr = { low = 1.0, high = inf }", "space.lr: the range from low = 1.0 to high = inf is too wide"),
        ("space.scheduler_factor = [0.5, 1.0]", "space.scheduler_factor = 1.0 is out of range"),
        ("space.cosine_weight = { low = 0.5, high = 1.5 }", "space.cosine_weight = 1.5 is above 1, so mse_weight"),
        ("space.nhead = [0, 8]", "space.nhead = 0 is out of range; expected a number of at least 1"),
        # fixed values
        (SPACE + "fixed.lr = 1e-4", "lr is both in [fixed] and in [space]; keep one"),
        (SPACE + "fixed.batch_size = '32'", "fixed.batch_size = '32' has the wrong type; expected a whole number"),
        (SPACE + "fixed.batch_size = 1", "fixed.batch_size = 1 is out of range; expected a number of at least 2"),
        (SPACE + "fixed.dropout = 1.5", "fixed.dropout = 1.5 is out of range; expected at least 0 and below 1"),
        (SPACE + "fixed.dropout = nan", "fixed.dropout = nan is out of range"),
        (SPACE + "fixed.nhead = 0", "fixed.nhead = 0 is out of range"),
        (SPACE + "fixed.loss_type = 'focal'", "fixed.loss_type = 'focal' is unknown; expected one of combined"),
        (SPACE + "fixed = {nhead = 3, d_model = 8}", "fixed.nhead = 3 does not divide d_model = 8"),
        ("space.width = [1.0]\nfixed.d_model = 64", "d_model follows from space.width; keep one of them"),
        ("space.width = [1.0]\nspace.d_model = [64]", "d_model follows from space.width; keep one of them"),
        (SPACE + "fixed = {width = 1.0, d_model = 64}", "fixed.width and d_model are both set"),
        # budget and description
        (SPACE + "budget.trials = 0", "budget.trials = 0 is out of range; expected a whole number of at least 1"),
        (SPACE + "budget.epochs = -3", "budget.epochs = -3 is out of range"),
        (SPACE + "budget.trials = 1.5", "budget.trials = 1.5 is out of range"),
        (SPACE + "budget.trials = true", "budget.trials = True is out of range"),
        (SPACE + "study.description = 3", "study.description = 3 is not text"),
        (SPACE + "study.objective = 'identty'", "study.objective = 'identty' is unknown; did you mean 'identity'?"),
        (SPACE + "study.objective = 1", "study.objective = 1 is unknown"),
        # presets
        (SPACE + "study.presets = ['recomended']", "study.presets: recomended is unknown; did you mean 'recommended'?"),
        (SPACE + "study.presets = 'baseline'", "study.presets = 'baseline' is not a list of names"),
        (SPACE + "study.presets = [1]", "study.presets: 1 is unknown"),
        (SPACE + "presets.baseline = { lr = 1e-4 }", "presets.baseline has the name of a documented preset"),
        (SPACE + r'presets."a\nb" = { lr = 1e-4 }', r"the preset 'a\nb' has a character that no line can show"),
        (SPACE + "presets.home = 1e-4", "presets.home is not a table"),
        (SPACE + "presets.home = { lrr = 1e-4 }", "presets.home.lrr is unknown; did you mean 'lr'?"),
        (SPACE + "presets.home = { epochs = 5 }", "presets.home.epochs is unknown"),
        (SPACE + "presets.home = { lr = 'x' }", "presets.home.lr = 'x' has the wrong type; expected a number"),
        (SPACE + "presets.home = { lr = 0.1 }", "presets.home.lr = 0.1 is outside the search space, 0.0001 | 0.001"),
        (
            "space.lr = { low = 1e-3, high = 1e-2, scale = 'log' }\nstudy.presets = ['baseline']",
            "presets.baseline.lr = 0.0001 is outside the search space, 0.001 … 0.01 (log)",
        ),
        (
            "space.dropout = { low = 0.2, high = 0.5 }\npresets.home = { lr = 1e-3 }",
            "presets.home.dropout = 0.1 is outside the search space, 0.2 … 0.5",
        ),
        (
            "space.lr = { low = 1e-5, high = 1e-2, scale = 'log' }\npresets.home = { lr = 0 }",
            "presets.home.lr = 0.0 is out of range; expected a number above 0",
        ),
        (SPACE + "presets.home = { lr = 1e-4, dropout = 1.0 }", "presets.home.dropout = 1.0 is out of range"),
        (
            "space.d_model = [64, 128]\nstudy.presets = ['baseline']",
            "presets.baseline.d_model is not set, and the study searches it",
        ),
        # sampler and pruner
        (SPACE + "sampler.name = 'tp'", "sampler.name = 'tp' is unknown; did you mean 'tpe'?"),
        (SPACE + "sampler.name = 3", "sampler.name = 3 is not text"),
        (SPACE + "pruner.name = 'medium'", "pruner.name = 'medium' is unknown; did you mean 'median'?"),
        (
            SPACE + "sampler.n_start_trials = 3",
            "sampler.n_start_trials is unknown; did you mean 'n_startup_trials'?",
        ),
        (SPACE + "sampler.seed = 3", "sampler.seed is unknown"),
        (
            SPACE + "sampler.n_startup_trials = 'five'",
            "sampler.n_startup_trials = 'five' has the wrong type; expected a whole number",
        ),
        (SPACE + "sampler.multivariate = 1", "sampler.multivariate = 1 has the wrong type; expected true or false"),
        (SPACE + "sampler.gamma = 3", "sampler.gamma cannot be set in a study file: Optuna expects Callable"),
        (
            SPACE + "pruner = { name = 'median', warmup = 5 }",
            "pruner.warmup is unknown; did you mean 'n_warmup_steps'?",
        ),
        (SPACE + "pruner = { name = 'median', n_startup_trials = -1 }", "[pruner]: Number of startup trials"),
        (SPACE + "pruner.name = 'percentile'", "[pruner]: "),
        (
            SPACE + "pruner = { name = 'hyperband', max_resource = 1.5 }",
            "pruner.max_resource = 1.5 has the wrong type; expected a whole number or text",
        ),
        (SPACE + "pruner.patience = 5", "pruner.patience is unknown"),
    ],
)
def test_a_mistake_is_refused_with_file_key_and_what_is_expected(tmp_path, text, message):
    assert message_of(tmp_path, text).startswith(message)


def test_broken_toml_is_refused_with_its_line(tmp_path):
    assert re.match(r"not valid TOML: .*line 3", message_of(tmp_path, "[space]\nlr = [1e-4]\nbudget = = 3\n[pruner]\n"))


def test_bytes_that_are_not_utf8_are_refused_with_their_place(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes("[study]\n# ü".encode("latin-1"))
    with pytest.raises(StudyFileError, match=r"mine\.toml: not UTF-8 at byte 10") as caught:
        study_file.read(str(path))
    assert caught.value.hint == "save the file as UTF-8"


def test_a_file_that_is_not_there_is_named_with_the_studies_that_are(tmp_path):
    path = tmp_path / "none.toml"
    with pytest.raises(StudyFileError) as caught:
        study_file.read(str(path))
    assert caught.value.message == f"{path}: No such file or directory"
    assert caught.value.hint == f"built in are {', '.join(SHIPPED)}"


def test_a_folder_is_no_study_file(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(StudyFileError, match=r"folder\.toml: "):
        study_file.read(str(tmp_path / "folder.toml"))


@pytest.mark.parametrize(
    ("name", "question"),
    [("stage1-lrr", "; did you mean 'stage1-lr'?"), ("Default", "; did you mean 'default'?"), ("zzz", "")],
)
def test_an_unknown_study_name_is_answered_with_the_nearest(name, question):
    with pytest.raises(StudyFileError) as caught:
        study_file.read(name)
    assert caught.value.message == f"no study named {name!r}{question}"
    assert caught.value.hint == f"built in are {', '.join(SHIPPED)}; a file of your own ends in .toml"


def test_a_study_of_embeddings_that_512_says_nothing_about_is_fine(tmp_path):
    file = read(tmp_path, SPACE + "fixed.nhead = 10\nstudy.presets = []")
    assert file.bind("keypoint", 100, 1).config({"lr": 1e-3}, {}).d_model == 100


def test_a_study_that_does_not_fit_the_data_at_hand_is_refused_with_its_key(tmp_path):
    file = read(tmp_path, SPACE + "fixed.nhead = 10\nfixed.batch_size = 64")
    file.bind("keypoint", 100, 100).check(64)
    for size, pairs, message in (
        (16, 64, r"mine\.toml: fixed\.nhead = 10 does not divide d_model = 16"),
        (100, 63, r"mine\.toml: fixed\.batch_size = 64 is more than the 63 training pairs"),
    ):
        with pytest.raises(StudyFileError, match=message):
            file.bind("keypoint", size, 100).check(pairs)


@pytest.mark.parametrize(("name", "package"), [("gp", "scipy"), ("cmaes", "cmaes")])
def test_a_sampler_whose_package_is_missing_says_so_before_the_search(tmp_path, monkeypatch, name, package):
    monkeypatch.setattr("face3d_tune.search.algorithms.find_spec", lambda wanted: None)
    with pytest.raises(StudyFileError) as caught:
        prepare(write(tmp_path, SPACE + f"sampler.name = '{name}'"))
    assert f"sampler.name = {name!r} needs {package}, which is not installed" in caught.value.message
    assert caught.value.hint == f"pip install {package}"


@pytest.mark.parametrize(
    ("text", "kind", "options"),
    [
        (
            "sampler = { name = 'tpe', n_startup_trials = 3 }",
            "TPESampler",
            {"_n_startup_trials": 3},
        ),
        ("sampler.name = 'random'", "RandomSampler", {}),
        ("sampler = { name = 'gp', n_startup_trials = 4 }", "GPSampler", {"_n_startup_trials": 4}),
        ("sampler = { name = 'cmaes', n_startup_trials = 2 }", "CmaEsSampler", {"_n_startup_trials": 2}),
        ("pruner.name = 'none'", "NopPruner", {}),
        ("pruner = { name = 'median', n_warmup_steps = 7 }", "MedianPruner", {"_n_warmup_steps": 7}),
        ("pruner = { name = 'percentile', percentile = 25 }", "PercentilePruner", {"_percentile": 25}),
        ("pruner = { name = 'successive_halving', min_resource = 2 }", "SuccessiveHalvingPruner", {"_min_resource": 2}),
        ("pruner = { name = 'hyperband', max_resource = 'auto' }", "HyperbandPruner", {"_max_resource": "auto"}),
        ("pruner = { name = 'hyperband', max_resource = 30 }", "HyperbandPruner", {"_max_resource": 30}),
        ("pruner = { name = 'extrapolation', chance = 0.2 }", "ExtrapolationPruner", {"_chance": 0.2}),
        ("pruner = { name = 'shape', chance = 0.2 }", "ShapePruner", {"_chance": 0.2}),
    ],
)
def test_a_sampler_or_pruner_has_the_options_of_the_file(tmp_path, monkeypatch, text, kind, options):
    monkeypatch.setattr("face3d_tune.search.algorithms.find_spec", lambda wanted: wanted)
    file = read(tmp_path, SPACE + text)
    made = make_sampler(file, 1) if text.startswith("sampler") else make_pruner(file)
    assert type(made).__name__ == kind
    assert {name: getattr(made, name) for name in options} == options


@pytest.mark.parametrize(
    ("sampler", "liar"),
    [("", True), ("name = 'tpe'", True), ("constant_liar = false", False), ("constant_liar = true", True)],
)
def test_tpe_counts_trials_in_training_as_tried_unless_the_file_says_otherwise(tmp_path, sampler, liar):
    made = make_sampler(read(tmp_path, f"[space]\nlr = [1e-3]\n[sampler]\n{sampler}\n"), 1)
    assert made._constant_liar is liar


def test_samplers_with_one_seed_suggest_the_same_and_with_another_something_else(tmp_path):
    file = read(tmp_path, "space.lr = { low = 0.1, high = 1.0 }\nsampler.name = 'random'")

    def first(seed):
        return optuna.create_study(sampler=make_sampler(file, seed)).ask().suggest_float("lr", 0.1, 1.0)

    assert first(2**63 - 1) == first(2**63 - 1)
    assert first(2**63 - 1) != first(2**63 - 2)
